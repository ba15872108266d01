"""docker, podman and skopeo pull from a registry's own folder, as docker-registry left it: no registry runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.counts import assert_metric, assert_received, assert_sent_to_clients
from tests.support.pullers import blob_target, get
from tests.support.site import assert_all_came_by_the_swarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.clients import DockerDaemon, Podman, Skopeo

pytestmark = pytest.mark.client("docker-registry")

REPOSITORY = "library/random"
SIZES_BYTES = (500, 700_000, 5_000_000)
# Where the cluster's default upstream is: nobody listens there, a folder answers in its name.
NOBODY_THERE = "127.0.0.1:1"
NAME = "registry.test"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=12, with_index=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Path:
    """What a registry that was pushed to, and stopped, has left on disk."""
    root = tmp_path_factory.mktemp("registry")
    with Registry(root) as registry:
        registry.push(image, REPOSITORY)
    return root / "storage"


@pytest.fixture
def config(storage: Path, tmp_path: Path) -> Path:
    file = tmp_path / "upstreams.toml"
    file.write_text("".join(f'[upstream."{host}"]\ndirectory = "{storage}"\n' for host in (NAME, NOBODY_THERE)))
    return file


@pytest.fixture
def cluster(config: Path, tmp_path: Path) -> Iterator[Cluster]:
    flags = ["--config", str(config)]
    with Cluster(tmp_path, NOBODY_THERE, supernode_flags=flags, peer_flags=flags) as running:
        running.add_peers([None, None])
        running.wait_for_sessions(2)
        yield running


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.client("skopeo", "podman")
@pytest.mark.root
def test_skopeo_and_podman_pull_and_the_folder_is_read_once(
    cluster: Cluster, storage: Path, image: Image, skopeo: Callable[..., Skopeo], podman: Callable[..., Podman]
) -> None:
    before = files(storage)
    first, second = cluster.peers
    reference = f"{NAME}/{REPOSITORY}:latest"
    folder = skopeo(None, f"{first.proxy}/{NAME}", NAME).pull(reference)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
    assert f"sha256:{podman(None, f'{second.proxy}/{NAME}', NAME).pull(reference)}" == image.config.digest
    for peer in cluster.peers:
        assert_all_came_by_the_swarm(peer, image, manifests=False)
    assert_metric(cluster.supernode, "layercast_bytes_total", image.size_bytes, source="origin")
    assert files(storage) == before


@pytest.mark.client("dockerd", "docker")
@pytest.mark.root
def test_dockerd_pulls_through_its_mirror(cluster: Cluster, image: Image, dockerd: Callable[..., DockerDaemon]) -> None:
    peer = cluster.peers[0]
    daemon = dockerd(None, peer.proxy_url)
    assert daemon.pull("random:latest") == image.top.digest
    assert daemon.inspect("random:latest")["Id"] == image.config.digest
    assert_all_came_by_the_swarm(peer, image, manifests=False)


@pytest.mark.parametrize(
    ("flags", "ways"),
    [
        ([], {"origin": True, "passthrough": False}),
        (["--p2p", "false"], {"origin": False, "passthrough": True}),
    ],
    ids=["standalone", "pass-through"],
)
def test_a_peer_without_a_supernode_reads_the_folder_itself(
    config: Path, tmp_path: Path, image: Image, flags: list[str], ways: dict[str, bool]
) -> None:
    flags = ["--config", str(config), "--default-upstream", f"http://{NOBODY_THERE}", *flags]
    peer = Peer(
        "lonely", tmp_path / "lonely", ["--supernode", "http://127.0.0.1:1", "--open"], LOOPBACK, LOOPBACK, flags
    )
    try:
        peer.start()
        for blob in image.blobs:
            answer = get(peer.proxy, blob_target(blob.digest))
            assert answer.complete
            assert answer.sha256 == blob.digest
        assert_received(peer, **{way: image.size_bytes if used else 0 for way, used in ways.items()})
        if ways["passthrough"]:
            assert_sent_to_clients(peer, passthrough=image.size_bytes)
        tags = get(peer.proxy, f"/v2/{REPOSITORY}/tags/list")
        assert json.loads(tags.start) == {"name": REPOSITORY, "tags": ["latest"]}
        for target, code in (("manifests/none", "MANIFEST_UNKNOWN"), (f"blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN")):
            answer = get(peer.proxy, f"/v2/{REPOSITORY}/{target}")
            assert (answer.status, json.loads(answer.start)["errors"][0]["code"]) == (404, code)
    finally:
        peer.close()
