"""Nodes that began a pull before there was a supernode: the origin is not asked again for what they have or fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_received
from tests.support.pullers import start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from tests.support.pullers import Pull

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 12 * MIB
# What comes before the supernode does, of a pull that takes some seconds.
ALONE_BYTES = 3 * MIB
RATE_BYTES_S = 2 * MIB
# Where the one that goes on has not yet come to what the other had.
AFTER_BYTES = 1 * MIB


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    """Three peers that know where the supernode will be."""
    with Cluster(tmp_path, origin.address) as running:
        running.add_peers([None, None, None])
        running.wait_for_sessions(3)
        running.supernode.stop()
        yield running


def endings(origin: CountingProxy, digest: str) -> list[str]:
    """How the answers ended that the origin gave of the blob."""
    return [exchange.ending for exchange in origin.ledger().of_blob(digest)]


def finish(pulls: list[Pull], digest: str) -> None:
    """Everyone gets the whole blob."""
    for pull in pulls:
        with pull:
            answer = pull.result(120.0)
            assert (answer.complete, answer.sha256) == (True, digest)


def test_a_pull_that_one_node_began_alone_is_everybodys(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.set_rate(RATE_BYTES_S)
    first = start_pull(cluster.peers[0].proxy, digest)
    first.wait_for_bytes(ALONE_BYTES)
    cluster.supernode.start()
    cluster.wait_for_sessions(3)
    others = [start_pull(peer.proxy, digest) for peer in cluster.peers[1:]]
    origin.set_rate(None)
    finish([first, *others], digest)
    assert origin.ledger().gets(digest) == 1
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES
    assert_received(cluster, passthrough=0)


def test_of_two_nodes_that_began_alone_one_goes_on_and_what_both_have_is_used(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    # So slow that the second begins long before the first has all of it.
    origin.set_rate(RATE_BYTES_S / 4)
    alone = [start_pull(peer.proxy, digest) for peer in cluster.peers[:2]]
    for pull in alone:
        pull.wait_for_bytes(ALONE_BYTES // 3)
    cluster.supernode.start()
    cluster.wait_for_sessions(3)
    third = start_pull(cluster.peers[2].proxy, digest)
    # Both fetched all of it. Now one of them does, and the other has stopped.
    wait_until(lambda: "client-gone" in endings(origin, digest), "one fetch to end")
    twice_bytes = origin.ledger().repeated_bytes(digest)
    origin.set_rate(None)
    finish([*alone, third], digest)
    assert origin.ledger().gets(digest) == 2
    assert origin.ledger().repeated_bytes(digest) <= twice_bytes + AFTER_BYTES
    assert_received(cluster, passthrough=0)
