"""The operator's `layercast up` and `layercast pull`, end to end, and the programs' end on SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.metrics import scrape
from benchmarks.cluster.processes import WAIT_S, ManagedProcess, ProcessError, run, wait_until
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.services import Cluster, script
from proto.pieces import MIB
from tests.support.counts import assert_becomes
from tests.support.pullers import blob_target, get, start_pull
from tests.support.site import assert_left_the_origin_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.image import Image
    from benchmarks.cluster.registry import Registry

pytestmark = pytest.mark.client("docker-registry")


@pytest.fixture
def up(origin: CountingProxy, tmp_path: Path) -> Iterator[ManagedProcess]:
    listeners = ("--listen", "--upload-listen", "--supernode-listen", "--supernode-upload-listen")
    argv: list[str | Path] = [script("layercast"), "up", "--default-upstream", origin.url]
    argv += ["--data-dir", tmp_path / "data", *(word for flag in listeners for word in (flag, "127.0.0.1:0"))]
    environment = clean_environment(HOME=str(tmp_path))
    with ManagedProcess(argv, name="layercast up", env=environment) as process:
        yield process


def layercast(*words: str | Path) -> str:
    """Run the operator's command; its output. Raises ProcessError."""
    return run([script("layercast"), *words], env=clean_environment()).stdout


def figures(status_address: str) -> tuple[int, int, int]:
    """Bytes received from anywhere, those from the seed, and bytes sent to clients."""
    metrics = scrape(status_address)
    received = metrics.value("layercast_bytes_total"), metrics.value("layercast_bytes_total", source="seed")
    return int(received[0]), int(received[1]), int(metrics.value("layercast_client_bytes_total"))


def test_an_image_is_pulled_through_what_up_started(
    up: ManagedProcess, origin: CountingProxy, image: Image, tmp_path: Path
) -> None:
    ready = up.wait_ready()
    mirror, layout = f"http://{ready['proxy']}", tmp_path / "layout"
    said = layercast("pull", "random:latest", "--via", mirror, "--output", layout)
    assert f"digest={image.manifest.digest} blobs={len(image.blobs)} bytes={image.size_bytes} " in said
    assert said.endswith("digests=right\n")
    for blob in image.blobs:
        kept = layout / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
        assert kept.read_bytes() == blob.path.read_bytes()
    layercast("pull", "random:latest", "--via", mirror)
    assert_left_the_origin_once(origin, image.blobs)
    assert_becomes(lambda: figures(ready["proxy"]), (image.pulled_bytes, image.pulled_bytes, 2 * image.size_bytes))
    assert "connected" in layercast("status", "--peer", mirror, "--supernode", f"http://{ready['supernode']}")


def test_a_pull_of_what_the_origin_does_not_have_fails_with_one_line(up: ManagedProcess) -> None:
    ready = up.wait_ready()
    with pytest.raises(ProcessError, match=r"exit status 1\nlayercast pull: .*library/absent"):
        layercast("pull", "absent:latest", "--via", f"http://{ready['proxy']}")


def test_sigterm_ends_up_and_both_its_programs(up: ManagedProcess) -> None:
    ready = up.wait_ready()
    assert up.terminate() == 0
    for address in (ready["proxy"], ready["supernode"]):
        with pytest.raises(ConnectionRefusedError):
            get(address, "/healthz")


def test_sigterm_ends_peer_and_supernode_in_mid_pull(
    registry: Registry, origin: CountingProxy, image: Image, tmp_path: Path
) -> None:
    blob = image.layers[-1]
    # The pull would never end.
    origin.add_fault(Fault(path_contains=blob.digest, method="GET", stall_after_bytes=MIB))
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer()
        with start_pull(peer.proxy, blob.digest) as pull:
            pull.wait_for_bytes(1)
            for service in (peer, cluster.supernode):
                assert service.stop() == 0
            assert not pull.result(WAIT_S).complete
        peer.start()
        assert get(peer.proxy, "/v2/").status == 200
        origin.clear_faults()
        wait_until(lambda: get(peer.proxy, blob_target(blob.digest)).sha256 == blob.digest, "the pull again")
