"""Real clients with a proxy: dockerd, skopeo and curl reach a registry by TLS through their node's peer, by the swarm.

The registry has TLS by an authority of its own, which peers know and clients do not; clients know their peer's. They
have no route to the registry, and cannot resolve its name.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.processes import ProcessError, run
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.services import Cluster
from tests.support.clients import DockerDaemon, Skopeo
from tests.support.clients.podman import wrongly_named_files
from tests.support.clients_table import INSECURE, NO_LOGIN, PROXY
from tests.support.counts import assert_becomes
from tests.support.site import (
    ClientNode,
    Site,
    assert_all_came_by_the_swarm,
    assert_left_the_origin_once,
)
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.registry import Registry
    from tests.support.networks import Lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("dockerd", "docker", "docker-registry", "ip", "tc", "nsenter", "curl", "skopeo"),
]

HOST = "registry.test"
IMAGE = f"{HOST}/library/random:latest"


class SecureSite:
    """A registry behind TLS that a supernode and all nodes know as HOST."""

    def __init__(self, lab: Lab, origin: CountingProxy, cluster: Cluster) -> None:
        self._lab = lab
        self.origin = origin
        self.cluster = cluster

    def add_node(self) -> ClientNode:
        """With a client's namespace."""
        node = self._lab.add_node()
        client = node.add_client()
        peer = self.cluster.add_peer(node, proxy_host=client.gateway)
        self.cluster.wait_for_sessions(len(self.cluster.peers))
        return ClientNode(peer, client)


@pytest.fixture
def secure(lab: Lab, registry: Registry, tmp_path: Path) -> Iterator[SecureSite]:
    authority = Authority(tmp_path)
    tls = authority.issue([lab.host_address]).server_context()
    config = tmp_path / "upstreams.toml"
    with CountingProxy(registry.host_port, (lab.host_address, 0), tls=tls) as origin:
        config.write_text(f'[upstream."{HOST}"]\nurl = "{origin.url}"\nca_file = "{authority.certificate_file}"\n')
        flags = ["--config", str(config)]
        with Cluster(
            tmp_path, origin.address, host=lab.host_address, supernode_flags=flags, peer_flags=flags
        ) as cluster:
            yield SecureSite(lab, origin, cluster)


def proxied(node: ClientNode) -> dict[str, str]:
    """What a client of that node is given."""
    ca = node.peer.data_dir / "interception" / "ca.pem"
    url = node.peer.proxy_url
    return {"HTTPS_PROXY": url, "HTTP_PROXY": url, "SSL_CERT_FILE": str(ca)}


@pytest.mark.pulls("dockerd", PROXY, NO_LOGIN)
def test_two_dockerds_with_a_proxy_pull_one_image_and_the_registry_sends_it_once(
    secure: SecureSite, image: Image
) -> None:
    for node in [secure.add_node(), secure.add_node()]:
        with DockerDaemon(netns=node.client.name, environment=proxied(node)) as dockerd:
            assert dockerd.pull(IMAGE) == image.top.digest
            assert len(dockerd.file_digests(IMAGE)) == len(image.layers)
        assert_all_came_by_the_swarm(node.peer, image)
    assert_left_the_origin_once(secure.origin, image.blobs)


@pytest.mark.pulls("skopeo", PROXY, NO_LOGIN)
def test_skopeo_with_a_proxy_pulls_by_the_swarm(secure: SecureSite, image: Image) -> None:
    node = secure.add_node()
    with Skopeo([], netns=node.client.name) as skopeo:
        skopeo.environment |= proxied(node)
        assert wrongly_named_files(skopeo.pull(IMAGE)) == []
    assert_all_came_by_the_swarm(node.peer, image)
    assert_left_the_origin_once(secure.origin, image.blobs)


@pytest.mark.pulls("curl", PROXY, NO_LOGIN)
def test_curl_sees_the_registry_by_the_nodes_certificate_and_nothing_else_by_it(
    secure: SecureSite, image: Image
) -> None:
    node = secure.add_node()
    ca = node.peer.data_dir / "interception" / "ca.pem"

    def curl(*words: str) -> str:
        argv = [program("curl"), "-sS", "--proxy", node.peer.proxy_url, "--cacert", str(ca), *words]
        return run(argv, netns=node.client.name, env=clean_environment()).stdout

    digest = image.layers[0].digest
    head = curl("-o", "/dev/null", "-D", "-", f"https://{HOST}/v2/library/random/blobs/{digest}")
    assert f"Docker-Content-Digest: {digest}" in head
    assert "Server: layercast" in head
    with pytest.raises(ProcessError, match="response 403"):
        curl("https://example.com/")


def test_nothing_on_the_node_or_beside_it_is_reached_through_its_proxy(secure: SecureSite, lab: Lab) -> None:
    node = secure.add_node()
    with socket.create_server((lab.host_address, 0)) as listener:
        port = listener.getsockname()[1]
        targets = [
            f"{lab.host_address}:{port}",
            f"127.0.0.1:{port}",
            "169.254.169.254:443",
            "example.com:22",
        ]
        argv = [program("curl"), "-sS", "--proxy", node.peer.proxy_url, "--insecure"]
        for target in targets:
            with pytest.raises(ProcessError, match="response 403"):
                run([*argv, f"https://{target}/"], netns=node.client.name, env=clean_environment())
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert_becomes(
        lambda: {"refused": int(node.peer.metrics().value("layercast_connects_total", result="refused"))},
        {"refused": len(targets)},
    )


@pytest.mark.pulls("dockerd", INSECURE, NO_LOGIN)
def test_dockerd_asks_an_insecure_registry_by_its_whole_url(site: Site, image: Image) -> None:
    node = site.add_node()
    registry = site.origin.address
    environment = {"HTTPS_PROXY": node.peer.proxy_url, "HTTP_PROXY": node.peer.proxy_url}
    with DockerDaemon(netns=node.client.name, insecure_registries=[registry], environment=environment) as dockerd:
        assert dockerd.pull(f"{registry}/library/random:latest") == image.top.digest
    assert_all_came_by_the_swarm(node.peer, image)
    assert_left_the_origin_once(site.origin, image.blobs)
