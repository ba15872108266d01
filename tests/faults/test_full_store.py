"""No room: a disk that is really full, a store smaller than the layer. The client gets its layer all the same."""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

import pytest

from tests.support.counts import assert_becomes, assert_received
from tests.support.held import held_bytes
from tests.support.pullers import pull, start_pull
from tests.support.tmpfs import fill, small_tmpfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer, Service

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
# It says who must act.
LINE_ABOUT_THE_DISK = "look after the disk of the store"


def assert_gets_its_layer(peer: Peer, digest: str) -> None:
    answer = pull(peer.proxy, digest)
    assert answer.complete, answer
    assert answer.sha256 == digest


def assert_holds(peer: Peer, digest: str, size_bytes: int) -> None:
    assert_becomes(lambda: held_bytes(peer.data_dir, digest), size_bytes)


@pytest.mark.root
def test_a_disk_too_small_for_the_layer(cluster: Cluster, push: Callable[[int], str]) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.prepare_peer(extra=["--store-free-floor", "0"])
    with small_tmpfs(peer.data_dir, 4 * MIB):
        peer.start()
        assert_gets_its_layer(peer, digest)
        assert peer.healthz()[0] == 200
        peer.close()


@pytest.mark.root
def test_a_disk_that_fills_up_in_the_middle_of_the_pull(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.prepare_peer(extra=["--store-free-floor", "0"])
    with small_tmpfs(peer.data_dir, 16 * MIB):
        peer.start()
        origin.set_rate(MIB)
        with start_pull(peer.proxy, digest) as client:
            client.wait_for_bytes(2 * MIB)
            fill(peer.data_dir)
            origin.set_rate(None)
            answer = client.result()
        assert answer.complete, answer
        assert answer.sha256 == digest
        peer.process.wait_for_line("the disk of the store is down to its floor|No space left|no room left on the disk")
        # and there is room again
        (peer.data_dir / "filler").unlink()
        assert_gets_its_layer(peer, digest)
        peer.close()


@pytest.mark.root
def test_a_supernode_without_room_leaves_the_origin_to_the_nodes(cluster: Cluster, push: Callable[[int], str]) -> None:
    digest = push(SIZE_BYTES)
    supernode = cluster.supernode
    supernode.stop()
    supernode.extra += ["--store-free-floor", "0"]
    with small_tmpfs(supernode.data_dir, 4 * MIB):
        supernode.start()
        for peer in cluster.add_peers([None, None]):
            assert_gets_its_layer(peer, digest)
        assert supernode.healthz()[0] == 200
        supernode.close()


def test_a_store_limit_smaller_than_the_layer(cluster: Cluster, push: Callable[[int], str]) -> None:
    digest, small = push(SIZE_BYTES), push(MIB)
    peer = cluster.add_peer(extra=["--store-size", "4MiB"])
    cluster.wait_for_sessions(1)
    assert_gets_its_layer(peer, digest)
    assert held_bytes(peer.data_dir, digest) == 0
    assert_gets_its_layer(peer, small)
    assert_holds(peer, small, MIB)


def test_a_store_full_of_older_layers_evicts_them(cluster: Cluster, push: Callable[[int], str]) -> None:
    """At once: a client has its last byte, and asks for the next layer, before the disk has all of the last one."""
    digests = [push(SIZE_BYTES) for _ in range(6)]
    peer = cluster.add_peer(extra=["--store-size", "12MiB"])
    cluster.wait_for_sessions(1)
    for digest in digests:
        assert_gets_its_layer(peer, digest)
    assert_received(peer, seed=6 * SIZE_BYTES, passthrough=0, origin=0)
    assert_becomes(lambda: [held_bytes(peer.data_dir, digest) for digest in digests], [0] * 5 + [SIZE_BYTES])


def test_a_supernode_makes_room_although_the_nodes_that_pulled_stay_connected(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    """What a node has whole it wants no more: nothing keeps the supernode's copy from eviction."""
    digests = [push(4 * MIB) for _ in range(10)]
    supernode = cluster.supernode
    supernode.stop()
    supernode.extra += ["--store-size", "20MiB"]
    supernode.start()
    peers = cluster.add_peers([None, None, None])
    cluster.wait_for_sessions(3)
    for digest in digests:
        for peer in peers:
            assert_gets_its_layer(peer, digest)
    assert_received(cluster, passthrough=0, origin=0)
    assert [origin.ledger().gets(digest) for digest in digests] == [1] * 10
    assert supernode.metrics().value("layercast_store_full_total", reason="limit") == 0
    assert supernode.metrics().value("layercast_store_bytes") <= 20 * MIB


@contextlib.contextmanager
def without_writes(service: Service) -> Iterator[None]:
    """No file of the running program takes a byte: to it, a disk that fails or is read-only."""
    pid = service.process.pid
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def lines_about_the_disk(service: Service) -> list[str]:
    return [line for line in service.process.log() if LINE_ABOUT_THE_DISK in line]


def test_a_peer_whose_disk_takes_no_writes_passes_the_layer_through_and_says_so_once(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    with without_writes(peer):
        assert_gets_its_layer(peer, digest)
        assert_becomes(lambda: len(lines_about_the_disk(peer)), 1)
        assert peer.healthz()[0] == 200
    assert_received(peer, passthrough=SIZE_BYTES)


def test_a_peer_whose_disk_takes_no_writes_any_more_goes_on_from_the_origin(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    origin.set_rate(MIB)
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(MIB)
        with without_writes(peer):
            origin.set_rate(None)
            answer = client.result()
    assert answer.complete, answer
    assert answer.sha256 == digest
    peer.process.wait_for_line(LINE_ABOUT_THE_DISK)


def test_a_supernode_whose_disk_takes_no_writes_leaves_the_origin_to_the_nodes(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peers = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    with without_writes(cluster.supernode):
        for peer in peers:
            assert_gets_its_layer(peer, digest)
        cluster.supernode.process.wait_for_line(LINE_ABOUT_THE_DISK)
        assert cluster.supernode.healthz()[0] == 200
