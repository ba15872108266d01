"""Nodes that began a pull before there was a supernode: the origin is not asked again for what they have or fetch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.metrics import http_get
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_received
from tests.support.pullers import start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.ledger import Exchange
    from tests.support.pullers import Pull

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 32 * MIB
# What comes to one node before the supernode does; another begins with less.
AHEAD_BYTES = 6 * MIB
BEHIND_BYTES = 256 << 10
RATE_BYTES_S = 4 * MIB
# From then on: at this rate nobody comes so far in the time that a supernode takes to start.
SLOW_BYTES_S = 128 << 10
# Nodes that know nobody wait for a supernode that is gone, and then begin at moments of their own: not here.
IMPATIENT = ["--supernode-patience", "0s"]


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    """Three peers that know where the supernode will be."""
    with Cluster(tmp_path, origin.address, peer_flags=IMPATIENT) as running:
        running.add_peers([None, None, None])
        running.wait_for_sessions(3)
        running.supernode.stop()
        yield running


def begin_alone(cluster: Cluster, origin: CountingProxy, digest: str) -> Pull:
    """The first node's pull: it has come far, and goes on slowly."""
    origin.set_rate(RATE_BYTES_S)
    pull = start_pull(cluster.peers[0].proxy, digest)
    pull.wait_for_bytes(AHEAD_BYTES)
    origin.set_rate(SLOW_BYTES_S)
    return pull


def exchanges(origin: CountingProxy, digest: str) -> list[Exchange]:
    """The origin's answers with the blob, in the order in which they began."""
    return origin.ledger().of_blob(digest)


def members(cluster: Cluster) -> int:
    """How many nodes the supernode has let into its swarms."""
    _, body = http_get(cluster.supernode.status_address, "/v1/status")
    return sum(swarm["members"] for swarm in json.loads(body)["swarms"])


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
    first = begin_alone(cluster, origin, digest)
    cluster.supernode.start()
    cluster.wait_for_sessions(3)
    wait_until(lambda: members(cluster) == 1, "the node to say what it fetches")
    others = [start_pull(peer.proxy, digest) for peer in cluster.peers[1:]]
    wait_until(lambda: members(cluster) == 3, "the others to want it")
    origin.set_rate(None)
    finish([first, *others], digest)
    assert origin.ledger().gets(digest) == 1
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES
    assert_received(cluster, passthrough=0)


@pytest.mark.parametrize("late", [0, 1], ids=["ahead", "behind"])
def test_of_two_nodes_that_began_alone_the_one_ahead_goes_on_and_the_other_stops(
    late: int, cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    first = begin_alone(cluster, origin, digest)
    second = start_pull(cluster.peers[1].proxy, digest)
    second.wait_for_bytes(BEHIND_BYTES)
    cluster.peers[late].process.pause()
    cluster.supernode.start()
    wait_until(lambda: members(cluster) == 1, "one node to say what it fetches")
    cluster.peers[late].process.resume()
    wait_until(lambda: members(cluster) == 2, "the other one to say it")
    wait_until(lambda: "client-gone" in [each.ending for each in exchanges(origin, digest)], "one fetch to end")
    origin.set_rate(None)
    cluster.wait_for_sessions(3)
    third = start_pull(cluster.peers[2].proxy, digest)
    finish([first, second, third], digest)
    ahead, behind = exchanges(origin, digest)
    assert (ahead.ending, behind.ending) == ("complete", "client-gone")
    # What came to the one that stopped is all that was sent twice.
    assert ahead.body_sent_bytes == SIZE_BYTES
    assert behind.body_acked_bytes < AHEAD_BYTES
    assert_received(cluster, passthrough=0)
