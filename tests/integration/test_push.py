"""Real clients push through their node's peer, by prefix and by proxy, to registries with and without a login."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.clients import DockerDaemon, Podman, Skopeo
from tests.support.clients.podman import wrongly_named_files
from tests.support.passwords import PASSWORD, USER, password_auth
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Peer
    from tests.support.networks import Lab

pytestmark = pytest.mark.client("docker-registry")


def named(folder: Path, host: str, url: str, more: str = "") -> str:
    """A configuration in which an upstream has a name: repositories cannot begin with a port."""
    file = folder / "upstreams.toml"
    file.write_text(f'[upstream."{host}"]\nurl = "{url}"\n{more}')
    return str(file)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry to push to."""
    with Registry(tmp_path / "target") as running:
        yield running


@pytest.fixture
def peer(tmp_path: Path, registry: Registry, target: Registry) -> Iterator[Peer]:
    """It mirrors the registry that has the image by default, and the target by the name target.test."""
    flags = ["--config", named(tmp_path, "target.test", target.url)]
    with Cluster(tmp_path, registry.address, supernode_flags=flags, peer_flags=flags) as cluster:
        yield cluster.add_peer()


def assert_pushed(target: Registry, image: Image, repository: str, **how: str) -> None:
    """Straight from the registry, without the mirror. podman packs layers anew, and so they have other digests."""
    with Skopeo([]) as direct:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in how.items()]
        found = json.loads(
            direct.run("inspect", "--raw", "--tls-verify=false", *options, f"docker://{target.address}/{repository}")
        )
    if "manifests" not in found:
        assert found["config"]["digest"] == image.config.digest
        assert len(found["layers"]) == len(image.layers)


@pytest.mark.client("skopeo")
def test_skopeo_copies_from_one_registry_to_another_through_one_peer(
    peer: Peer, registry: Registry, target: Registry, image: Image
) -> None:
    with Skopeo([]) as skopeo:
        source = f"docker://{peer.proxy}/library/random:latest"
        for repository in ("org/app", "org/mounted"):  # the second time its blobs are there to be mounted
            there = f"docker://{peer.proxy}/target.test/{repository}:1.0"
            plain = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"]
            skopeo.run("copy", *plain, source, there)
            assert_pushed(target, image, f"{repository}:1.0")
        folder = skopeo.directory / "back"
        skopeo.run("copy", "--src-tls-verify=false", f"docker://{peer.proxy}/target.test/org/app:1.0", f"dir:{folder}")
        assert wrongly_named_files(folder) == []


def test_a_blob_is_mounted_from_another_repository(peer: Peer, target: Registry, image: Image) -> None:
    target.push(image, "org/base")
    digest = image.layers[0].digest
    host, _, port = peer.proxy.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=WAIT_S)) as client:
        client.request("POST", f"/v2/target.test/org/app/blobs/uploads/?mount={digest}&from=target.test/org/base")
        response = client.getresponse()
        assert response.read() == b""
        assert (response.status, response.getheader("Location")) == (201, f"/v2/target.test/org/app/blobs/{digest}")
        client.request("HEAD", str(response.getheader("Location")))
        assert client.getresponse().status == 200


@pytest.mark.root
@pytest.mark.client("podman")
def test_podman_pushes_with_a_login_what_it_pulled(tmp_path: Path, registry: Registry, image: Image) -> None:
    root = tmp_path / "locked"
    with Registry(root, auth=password_auth(root)) as locked, Podman([]) as podman:
        policy = ["--tls-verify=false", "--signature-policy", str(podman.directory / "policy.json")]
        source = f"{registry.address}/library/random:latest"
        podman.run("pull", "--quiet", *policy, source)
        with Cluster(tmp_path, locked.address) as cluster:
            peer = cluster.add_peer()
            podman.run("push", *policy, f"--creds={USER}:{PASSWORD}", source, f"{peer.proxy}/org/app:1.0")
            assert_pushed(locked, image, "org/app:1.0", creds=f"{USER}:{PASSWORD}")
            assert not any(PASSWORD in line for line in peer.process.log())


@pytest.mark.root
@pytest.mark.client("dockerd", "docker", "ip", "tc", "nsenter")
def test_dockerd_pushes_through_its_proxy(lab: Lab, tmp_path: Path, registry: Registry, image: Image) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue([lab.host_address]).server_context()
    with CountingProxy(registry.host_port, (lab.host_address, 0), tls=tls) as origin:
        config = named(tmp_path, "registry.test", origin.url, f'ca_file = "{authority.certificate_file}"\n')
        flags = ["--config", config]
        with Cluster(
            tmp_path, origin.address, host=lab.host_address, supernode_flags=flags, peer_flags=flags
        ) as cluster:
            node = lab.add_node()
            client = node.add_client()
            peer = cluster.add_peer(node, proxy_host=client.gateway)
            ca = peer.data_dir / "interception" / "ca.pem"
            environment = {"HTTPS_PROXY": peer.proxy_url, "SSL_CERT_FILE": str(ca)}
            with DockerDaemon(netns=client.name, environment=environment) as dockerd:
                dockerd.pull("registry.test/library/random:latest")
                dockerd.docker("tag", "registry.test/library/random:latest", "registry.test/pushed/app:1.0")
                dockerd.docker("push", "registry.test/pushed/app:1.0")
                # Its layers are in the other repository, where it asks for them to be mounted from.
                pushed_bytes = peer.metrics().value("layercast_pushed_bytes_total")
                assert pushed_bytes < min(layer.size_bytes for layer in image.layers[1:])
                dockerd.docker("rmi", "registry.test/pushed/app:1.0", "registry.test/library/random:latest")
                dockerd.pull("registry.test/pushed/app:1.0")
                assert dockerd.inspect("registry.test/pushed/app:1.0")["Id"] == image.config.digest
