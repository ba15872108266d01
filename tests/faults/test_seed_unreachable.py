"""The supernode's upload address is wrong, or a firewall stands before it: nodes do without, and one line says so."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_metric, assert_received
from tests.support.nowhere import address_that_refuses, address_without_answer
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
# Its port for pieces is at an address of its own: whoever looks for a program that ended at 127.0.0.1 must not connect
# to it, for a connection from a node's address says that the port can be reached.
OWN_ADDRESS = ["--upload-listen", "127.0.0.77:0"]


@pytest.mark.parametrize("make_nowhere", [address_that_refuses, address_without_answer])
def test_nodes_that_cannot_reach_the_seed_share_what_one_of_them_fetches(
    origin: CountingProxy,
    tmp_path: Path,
    push: Callable[[int], str],
    make_nowhere: Callable[[], AbstractContextManager[str]],
) -> None:
    first, second = push(SIZE_BYTES), push(SIZE_BYTES)
    with (
        make_nowhere() as nowhere,
        Cluster(tmp_path, origin.address, supernode_flags=["--advertise", nowhere, *OWN_ADDRESS]) as cluster,
    ):
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        for peer in peers:
            assert pull(peer.proxy, first).sha256 == first
        assert cluster.supernode.process.wait_for_line("seed_unreachable")
        with start_pull(peers[0].proxy, second) as one, start_pull(peers[1].proxy, second) as other:
            assert [one.result().sha256, other.result().sha256] == [second, second]
        # One of them for both: what the first blob showed holds for every node and blob.
        assert origin.ledger().gets(second) == 1
        assert_received(cluster, passthrough=0)
        assert cluster.received_bytes("seed") == 0
        assert_metric(cluster.supernode, "layercast_seed_unreachable", 2)
        with urllib.request.urlopen(f"http://{cluster.supernode.status_address}/v1/status") as answer:
            told = json.load(answer)["seed_unreachable"]
        assert [unreachable["address"] for unreachable in told] == [nowhere]
