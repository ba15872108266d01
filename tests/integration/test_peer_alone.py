"""A peer without what makes it a swarm: sharing switched off, no supernode, a registry that it may not ask."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.counts import assert_becomes, assert_received, assert_sent_to_clients
from tests.support.pullers import blob_target, get
from tests.support.site import Site, assert_left_the_origin_once, assert_stored_blobs_suffice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.image import Image
    from tests.support.clients import DockerDaemon

pytestmark = pytest.mark.client("docker-registry")

NOBODY_THERE = "http://127.0.0.1:1"


@pytest.fixture
def lonely(origin: CountingProxy, tmp_path: Path) -> Iterator[Peer]:
    """A peer whose supernode was never there."""
    flags = ["--default-upstream", origin.url]
    peer = Peer("lonely", tmp_path / "lonely", ["--supernode", NOBODY_THERE, "--open"], LOOPBACK, LOOPBACK, flags)
    try:
        peer.start()
        yield peer
    finally:
        peer.close()


def assert_pulls(peer: Peer, image: Image) -> None:
    for blob in image.blobs:
        answer = get(peer.proxy, blob_target(blob.digest))
        assert answer.complete, answer
        assert answer.sha256 == blob.digest


def test_without_a_supernode_a_peer_is_ready_and_says_so(lonely: Peer) -> None:
    status, body = lonely.healthz()
    assert status == 200
    assert b"not connected" in body


def test_without_a_supernode_pulls_come_from_upstream_and_then_from_the_store(
    lonely: Peer, origin: CountingProxy, image: Image
) -> None:
    assert_pulls(lonely, image)
    assert_pulls(lonely, image)
    assert_left_the_origin_once(origin, image.blobs)
    assert_received(lonely, origin=image.size_bytes)
    assert_stored_blobs_suffice(lonely, image, manifests=False)


def test_with_sharing_off_every_pull_passes_through(tmp_path: Path, origin: CountingProxy, image: Image) -> None:
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer(extra=["--p2p", "false"], has_session=False)
        assert_pulls(peer, image)
        assert_received(peer, passthrough=image.size_bytes, peer=0, seed=0, origin=0)
        assert_sent_to_clients(peer, passthrough=image.size_bytes)
        assert peer.metrics().value("layercast_store_bytes") == 0
        assert cluster.supernode.metrics().value("layercast_sessions_open") == 0


def test_sharing_is_switched_off_and_on_while_the_peer_runs(
    tmp_path: Path, origin: CountingProxy, image: Image
) -> None:
    config = tmp_path / "peer.toml"
    config.write_text("p2p = true\n")
    first, second, third = image.blobs[:3]
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer(extra=["--config", str(config)])
        cluster.wait_for_sessions(1)
        assert get(peer.proxy, blob_target(first.digest)).complete

        config.write_text("p2p = false\n")
        peer.process.send_signal(signal.SIGHUP)
        cluster.wait_for_sessions(0)
        assert get(peer.proxy, blob_target(second.digest)).complete
        assert_received(peer, passthrough=second.size_bytes)

        config.write_text("p2p = true\n")
        peer.process.send_signal(signal.SIGHUP)
        cluster.wait_for_sessions(1)
        assert get(peer.proxy, blob_target(third.digest)).complete
        assert_received(peer, passthrough=second.size_bytes, seed=first.size_bytes + third.size_bytes)


@pytest.mark.root
@pytest.mark.client("dockerd", "docker", "ip", "tc", "nsenter", "curl")
def test_dockerd_pulls_through_a_peer_whose_supernode_is_gone(
    site: Site, image: Image, dockerd: Callable[..., DockerDaemon]
) -> None:
    site.cluster.supernode.kill()
    node = site.add_node()
    daemon = dockerd(node.client.name, node.peer.proxy_url)
    assert daemon.pull("random:latest") == image.top.digest
    assert daemon.inspect("random:latest")["Id"] == image.config.digest
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_received(node.peer, origin=image.pulled_bytes)
    assert_becomes(lambda: node.peer.client_bytes("swarm") + node.peer.client_bytes("store"), image.size_bytes)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/library/random/manifests/latest?ns=registry.test",
        "/v2/library/random/manifests/latest?ns=127.0.0.1:1",
        "/v2/registry.test:5000/library/random/manifests/latest",
        f"/v2/library/random/blobs/sha256:{'0' * 64}?ns=169.254.169.254",
    ],
)
def test_a_registry_that_is_not_allowed_is_a_registry_error(lonely: Peer, origin: CountingProxy, target: str) -> None:
    answer = get(lonely.proxy, target)
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("application/json")
    [error] = json.loads(answer.start)["errors"]
    assert error["code"] in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN")
    assert origin.ledger().exchanges == ()
