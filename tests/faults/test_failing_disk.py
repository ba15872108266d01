"""A disk that turns read-only or fails in the middle of a pull: the client gets its layer, the operator a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from tests.support.counts import assert_becomes
from tests.support.failing_disk import become_read_only, fail, small_ext4
from tests.support.pullers import pull, start_pull
from tests.support.rot import stored_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer, Service

    Trouble = Callable[[Path], None]

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "mkfs.ext4")]

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
DISK_BYTES = 64 * MIB
TROUBLES = pytest.mark.parametrize("trouble", [become_read_only, fail])


def wait_for_line_about_the_disk(service: Service) -> None:
    """One that says who must act."""
    service.process.wait_for_line("look after the disk of the store")


def assert_gets_its_layer(peer: Peer, digest: str) -> None:
    answer = pull(peer.proxy, digest)
    assert answer.complete, answer
    assert answer.sha256 == digest


def bytes_by_disk_and_passthrough(peer: Peer) -> tuple[int, int]:
    """What its clients got by way of its disk, and past it."""
    return peer.client_bytes("swarm") + peer.client_bytes("store"), peer.client_bytes("passthrough")


def pull_through_trouble(peer: Peer, digest: str, origin: CountingProxy, disk: Path, trouble: Trouble) -> None:
    """The client has a part of its layer when the trouble begins."""
    origin.set_rate(MIB)
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(2 * MIB)
        trouble(disk)
        origin.set_rate(None)
        answer = client.result()
    assert answer.complete, answer
    assert answer.sha256 == digest


@TROUBLES
def test_the_disk_of_a_peer(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], trouble: Trouble
) -> None:
    first, second = push(SIZE_BYTES), push(SIZE_BYTES)
    peer = cluster.prepare_peer(extra=["--store-free-floor", "0"])
    with small_ext4(peer.data_dir, DISK_BYTES):
        peer.start()
        cluster.wait_for_sessions(1)
        pull_through_trouble(peer, first, origin, peer.data_dir, trouble)
        wait_for_line_about_the_disk(peer)
        assert_gets_its_layer(peer, second)
        assert peer.healthz()[0] == 200
        peer.close()


@TROUBLES
def test_the_disk_of_a_peer_that_had_the_layer(cluster: Cluster, push: Callable[[int], str], trouble: Trouble) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.prepare_peer(extra=["--store-free-floor", "0"])
    with small_ext4(peer.data_dir, DISK_BYTES):
        peer.start()
        cluster.wait_for_sessions(1)
        assert_gets_its_layer(peer, digest)
        wait_until(stored_path(peer.data_dir, digest).exists, "the blob under its final name")
        trouble(peer.data_dir)
        assert_gets_its_layer(peer, digest)
        assert peer.healthz()[0] == 200
        if trouble is become_read_only:
            # One that can only not be written to still gives what it has.
            assert_becomes(lambda: bytes_by_disk_and_passthrough(peer), (2 * SIZE_BYTES, 0))
        else:
            wait_until(lambda: peer.client_bytes("passthrough") > 0, "a layer that did not come from the disk")
        peer.close()


@TROUBLES
def test_the_disk_of_the_supernode(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], trouble: Trouble
) -> None:
    first, second = push(SIZE_BYTES), push(SIZE_BYTES)
    supernode = cluster.supernode
    supernode.stop()
    supernode.extra += ["--store-free-floor", "0"]
    with small_ext4(supernode.data_dir, DISK_BYTES):
        supernode.start()
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        pull_through_trouble(peers[0], first, origin, supernode.data_dir, trouble)
        wait_for_line_about_the_disk(supernode)
        for peer in peers:
            assert_gets_its_layer(peer, second)
        assert supernode.healthz()[0] == 200
        supernode.close()
