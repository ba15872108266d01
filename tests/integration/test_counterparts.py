"""The harness against real programs, without Layercast: what later tests build on does what it says.

Each client pulls a small image of random bytes; the counting proxy before the real registry has the books.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.counting_proxy import CountingProxyProcess
from benchmarks.harness.netns import Lab
from benchmarks.harness.processes import wait_until
from benchmarks.harness.registry import Registry
from benchmarks.origin.counting_proxy import CountingProxy
from benchmarks.origin.faults import Fault
from benchmarks.origin.image import Image, make_random_image
from tests.support.clients import Containerd, DockerDaemon, Mirror, Podman, Skopeo
from tests.support.clients.podman import wrongly_named_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.origin.ledger import Ledger
    from benchmarks.origin.proxy_process import ProxyControl

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]

REPOSITORY = "library/random"
SIZES_BYTES = (500, 300_000, 2_000_000)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=1, with_index=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(image, REPOSITORY)
        yield running


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as network:
        yield network


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
def test_dockerd_pulls_through_its_mirror(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    with DockerDaemon(netns=node.name, mirrors=[origin.url]) as daemon:
        assert daemon.pull("docker.io/library/random:latest") == image.top.digest
        assert daemon.inspect("random:latest")["Id"] == image.config.digest
        assert len(daemon.file_digests("random:latest")) == len(SIZES_BYTES)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_docker_build_with_buildkit_fetches_its_base_image(
    lab: Lab, origin: CountingProxy, image: Image, tmp_path: Path
) -> None:
    node = lab.add_node()
    (tmp_path / "hello").write_text("hello")
    with DockerDaemon(netns=node.name, mirrors=[origin.url], insecure_registries=[origin.url]) as daemon:
        daemon.build("FROM random:latest\nCOPY hello /hello\n", tmp_path, "built")
        assert daemon.file_digests("built")["hello"] == hashlib.sha256(b"hello").hexdigest()
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_a_client_reaches_its_node_alone(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    client = node.add_client()
    host, _, port = origin.address.partition(":")
    with CountingProxyProcess((host, int(port)), f"{client.gateway}:0", netns=node.name) as stand_in:
        assert node.reaches(host, int(port))
        assert not client.reaches(host, int(port))
        with DockerDaemon(netns=client.name, mirrors=[stand_in.url]) as daemon:
            assert daemon.pull("random:latest") == image.top.digest
        assert_each_blob_left_once(stand_in, image)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("dockerd", "docker")
def test_a_dockerd_killed_in_mid_pull_leaves_nothing_running(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    origin.add_fault(Fault(path_contains=image.layers[-1].digest, stall_after_bytes=1000))
    with (
        DockerDaemon(netns=node.name, mirrors=[origin.url]) as daemon,
        daemon.start_pull("random:latest") as pull,
    ):
        wait_until(lambda: origin.ledger().blob_bytes(image.layers[-1].digest) == 1000, "the stall")
        daemon.process.kill()
        assert pull.wait(10) != 0
    wait_until(lambda: node.processes() == [], "the end of the daemon's containerd")


@pytest.mark.client("containerd", "ctr")
def test_ctr_pulls_through_hosts_toml(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    with Containerd({"_default": origin.url}, netns=node.name) as containerd:
        containerd.pull("docker.io/library/random:latest")
        assert {blob.digest for blob in image.blobs} <= containerd.content()
    assert_each_blob_left_once(origin, image)
    assert all(exchange.query == "ns=docker.io" for exchange in origin.ledger().exchanges)


@pytest.mark.client("containerd")
def test_cri_pulls_through_hosts_toml(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    with Containerd({"_default": origin.url}, netns=node.name) as containerd, containerd.cri() as cri:
        assert cri.pull("docker.io/library/random:latest") == image.config.digest
        assert cri.images()[image.config.digest] == [
            "docker.io/library/random:latest",
            f"docker.io/library/random@{image.top.digest}",
        ]
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("podman")
def test_podman_pulls_through_registries_conf(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    mirror = Mirror("quay.io", origin.address)
    with Podman([mirror], netns=node.name) as podman:
        assert f"sha256:{podman.pull('quay.io/library/random:latest')}" == image.config.digest
        assert len(podman.file_digests("quay.io/library/random:latest")) == len(SIZES_BYTES)
    assert_each_blob_left_once(origin, image)


@pytest.mark.client("skopeo")
def test_skopeo_copies_through_registries_conf(lab: Lab, origin: CountingProxy, image: Image) -> None:
    node = lab.add_node()
    mirror = Mirror("quay.io", origin.address)
    with Skopeo([mirror], netns=node.name) as skopeo:
        folder = skopeo.pull("quay.io/library/random:latest")
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["config"]["digest"] == image.config.digest
        assert wrongly_named_files(folder) == []
    assert_each_blob_left_once(origin, image)
