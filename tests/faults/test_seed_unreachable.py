"""The supernode's upload address is wrong, or a firewall stands before it: nodes do without, and one line says so."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.services import Cluster
from peer.transport.wire import format_request, nonce_path
from tests.support.counts import assert_metric, assert_received
from tests.support.nowhere import address_that_refuses, address_without_answer
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 8 * MIB


@contextlib.contextmanager
def stray_connection(address: str) -> Iterator[None]:
    """Some program of this machine is connected there, and asks what anybody may."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as sock:
        sock.sendall(format_request(nonce_path(), address))
        assert sock.recv(64).startswith(b"HTTP/1.1 204 ")
        yield


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
        Cluster(tmp_path, origin.address, supernode_flags=["--advertise", nowhere]) as cluster,
        # Connections from the nodes' address are not the nodes'.
        stray_connection(cluster.supernode.ready["upload"]),
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
        fetches = sum(peer.metrics().value("layercast_fallbacks_total", reason="elected") for peer in peers)
        assert fetches >= 2
        assert cluster.supernode.metrics().value("layercast_elections_total") >= 2
        with urllib.request.urlopen(f"http://{cluster.supernode.status_address}/v1/status") as answer:
            told = json.load(answer)["seed_unreachable"]
        assert [unreachable["address"] for unreachable in told] == [nowhere]
