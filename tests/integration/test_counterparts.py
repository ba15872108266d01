"""The harness against real programs, without Layercast: what later tests build on does what it says.

Each client pulls a small image of random bytes; the counting proxy before the real registry has the books.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.proxy_process import CountingProxyProcess
from tests.support.clients import Containerd, DockerDaemon, Podman, Skopeo
from tests.support.clients.podman import wrongly_named_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.ledger import Ledger
    from benchmarks.cluster.proxy_process import ProxyControl
    from benchmarks.cluster.registry import Registry
    from tests.support.networks import Lab

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]


Docker = Callable[..., DockerDaemon]


@pytest.fixture
def origin(lab: Lab, registry: Registry) -> Iterator[CountingProxy]:
    with CountingProxy(registry.host_port, (lab.host_address, 0)) as proxy:
        yield proxy


def assert_each_blob_left_once(proxy: ProxyControl, image: Image) -> None:
    ledger: Ledger = proxy.ledger()
    assert {blob.digest: ledger.gets(blob.digest) for blob in image.blobs} == dict.fromkeys(
        (blob.digest for blob in image.blobs), 1
    )
    assert sum(ledger.blob_bytes(blob.digest) for blob in image.blobs) == image.size_bytes


@pytest.mark.client("dockerd", "docker")
def test_dockerd_pulls_through_its_mirror(lab: Lab, origin: CountingProxy, image: Image, dockerd: Docker) -> None:
    node = lab.add_node()
    with dockerd(node.name, origin.url) as daemon:
        assert daemon.pull("docker.io/library/random:latest") == image.top.digest
        assert daemon.inspect("random:latest")["Id"] == image.config.digest
        assert len(daemon.file_digests("random:latest")) == len(image.layers)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_docker_build_with_buildkit_fetches_its_base_image(
    lab: Lab, origin: CountingProxy, image: Image, dockerd: Docker, tmp_path: Path
) -> None:
    node = lab.add_node()
    (tmp_path / "hello").write_text("hello")
    with dockerd(node.name, origin.url, builds=True) as daemon:
        daemon.build("FROM random:latest\nCOPY hello /hello\n", tmp_path, "built")
        assert daemon.file_digests("built")["hello"] == hashlib.sha256(b"hello").hexdigest()
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_a_client_reaches_its_node_alone(lab: Lab, origin: CountingProxy, image: Image, dockerd: Docker) -> None:
    node = lab.add_node()
    client = node.add_client()
    host, _, port = origin.address.partition(":")
    with CountingProxyProcess((host, int(port)), f"{client.gateway}:0", netns=node.name) as stand_in:
        assert node.reaches(host, int(port))
        assert not client.reaches(host, int(port))
        with dockerd(client.name, stand_in.url) as daemon:
            assert daemon.pull("random:latest") == image.top.digest
        assert_each_blob_left_once(stand_in, image)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_a_dockerd_killed_in_mid_pull_leaves_nothing_running(
    lab: Lab, origin: CountingProxy, image: Image, dockerd: Docker
) -> None:
    node = lab.add_node()
    origin.add_fault(Fault(path_contains=image.layers[-1].digest, stall_after_bytes=1000))
    with (
        dockerd(node.name, origin.url) as daemon,
        daemon.start_pull("random:latest") as pull,
    ):
        wait_until(lambda: origin.ledger().blob_bytes(image.layers[-1].digest) == 1000, "the stall")
        daemon.process.kill()
        assert pull.wait(WAIT_S) != 0
    wait_until(lambda: node.processes() == [], "the end of the daemon's containerd")


@pytest.mark.client("containerd", "ctr")
def test_ctr_pulls_through_hosts_toml(
    lab: Lab, origin: CountingProxy, image: Image, containerd: Callable[[str, str], Containerd]
) -> None:
    node = lab.add_node()
    daemon = containerd(node.name, origin.url)
    daemon.pull("docker.io/library/random:latest")
    assert {blob.digest for blob in image.blobs} <= daemon.content()
    assert_each_blob_left_once(origin, image)
    assert all(exchange.query == "ns=docker.io" for exchange in origin.ledger().exchanges)


@pytest.mark.client("containerd")
def test_cri_pulls_through_hosts_toml(
    lab: Lab, origin: CountingProxy, image: Image, containerd: Callable[[str, str], Containerd]
) -> None:
    node = lab.add_node()
    with containerd(node.name, origin.url).cri() as cri:
        assert cri.pull("docker.io/library/random:latest") == image.config.digest
        assert cri.images()[image.config.digest] == [
            "docker.io/library/random:latest",
            f"docker.io/library/random@{image.top.digest}",
        ]
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("podman")
def test_podman_pulls_through_registries_conf(
    lab: Lab, origin: CountingProxy, image: Image, podman: Callable[..., Podman]
) -> None:
    client = podman(lab.add_node().name, origin.address)
    assert f"sha256:{client.pull('quay.io/library/random:latest')}" == image.config.digest
    assert len(client.file_digests("quay.io/library/random:latest")) == len(image.layers)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("skopeo")
def test_skopeo_copies_through_registries_conf(
    lab: Lab, origin: CountingProxy, image: Image, skopeo: Callable[..., Skopeo]
) -> None:
    folder = skopeo(lab.add_node().name, origin.address).pull("quay.io/library/random:latest")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["digest"] == image.config.digest
    assert wrongly_named_files(folder) == []
    assert_each_blob_left_once(origin, image)
