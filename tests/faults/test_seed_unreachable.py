"""The supernode's upload address is wrong, or a firewall stands before it: nodes do without, and one line says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.services import LOOPBACK, Cluster
from tests.support.counts import assert_received
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 8 * MIB


def test_nodes_that_cannot_reach_the_seed_share_what_one_of_them_fetches(
    origin: CountingProxy, tmp_path: Path, push: Callable[[int], str]
) -> None:
    first, second = push(SIZE_BYTES), push(SIZE_BYTES)
    nowhere = ReservedPort(LOOPBACK)
    try:
        with Cluster(tmp_path, origin.address, supernode_flags=["--advertise", nowhere.address]) as cluster:
            peers = cluster.add_peers([None, None])
            cluster.wait_for_sessions(2)
            for peer in peers:
                assert pull(peer.proxy, first).sha256 == first
            cluster.supernode.process.wait_for_line("seed_unreachable")
            with start_pull(peers[0].proxy, second) as one, start_pull(peers[1].proxy, second) as other:
                assert [one.result().sha256, other.result().sha256] == [second, second]
            # One of them for both; the seed may have begun before it was found out of reach again.
            assert origin.ledger().gets(second) <= 2
            assert_received(cluster, passthrough=0)
            assert cluster.received_bytes("seed") == 0
    finally:
        nowhere.close()
