"""Clusters whose pieces travel by BitTorrent: real processes, and clients that pull through `/v2/`."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_received
from tests.support.fake_origin import FakeOrigin, fake_origin
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.cluster.services import Peer
    from tests.support.pullers import Answer

MIB = 1 << 20
ANY_PORT = ["--torrent-listen", "127.0.0.1:0"]
NODES = 3


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        yield running


@pytest.fixture
def cluster(origin: FakeOrigin, tmp_path: Path) -> Iterator[Cluster]:
    """A supernode; the tests add peers."""
    with Cluster(
        tmp_path,
        origin.authority,
        supernode_flags=["--transport", "torrent", *ANY_PORT],
        peer_flags=["--log-level", "debug"],
    ) as running:
        yield running


def add_peers(cluster: Cluster, count: int, *flags: str) -> list[Peer]:
    peers = cluster.add_peers([None] * count, extra=[*ANY_PORT, *flags])
    cluster.wait_for_sessions(len(cluster.peers))
    return peers


def pull_everywhere(peers: Sequence[Peer], digest: str) -> list[Answer]:
    with ExitStack() as hanging_up:
        pulls = [hanging_up.enter_context(start_pull(peer.proxy, digest)) for peer in peers]
        return [running.result() for running in pulls]


def assert_all_got(answers: Sequence[Answer], digest: str) -> None:
    assert all(answer.complete for answer in answers), answers
    assert {answer.sha256 for answer in answers} == {digest}


def bytes_asked(origin: FakeOrigin) -> int:
    """GETs of blobs that the origin was asked for, in MiB-sized tests one is all."""
    return len(origin.blob_requests("GET"))


def test_cold_nodes_pull_at_once_and_the_origin_is_asked_once(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(1).randbytes(9 * MIB + 12_345)
    digest = str(origin.add(content))
    peers = add_peers(cluster, NODES)
    assert_all_got(pull_everywhere(peers, digest), digest)
    assert bytes_asked(origin) == 1
    for peer in peers:
        assert_received(peer, peer=len(content), seed=0, origin=0, passthrough=0)
        assert peer.metrics().value("layercast_leases_total", outcome="granted") == 0


def test_a_blob_of_one_piece_and_a_tiny_one_arrive_too(cluster: Cluster, origin: FakeOrigin) -> None:
    digests = [str(origin.add(random.Random(size).randbytes(size))) for size in (500, 100_000, 262_144)]
    peers = add_peers(cluster, NODES)
    for digest in digests:
        assert_all_got(pull_everywhere(peers, digest), digest)
    assert bytes_asked(origin) == len(digests)


def test_a_late_node_is_served_by_those_before_it(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(2).randbytes(6 * MIB)
    digest = str(origin.add(content))
    first = add_peers(cluster, 2)
    assert_all_got(pull_everywhere(first, digest), digest)
    late = add_peers(cluster, 1)
    assert_all_got(pull_everywhere(late, digest), digest)
    assert_received(late[0], peer=len(content))
    assert bytes_asked(origin) == 1


def test_a_restarted_node_serves_what_it_holds(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(3).randbytes(6 * MIB)
    digest = str(origin.add(content))
    first = add_peers(cluster, 1)
    assert_all_got(pull_everywhere(first, digest), digest)
    first[0].stop()
    first[0].start()
    cluster.wait_for_sessions(1)
    late = add_peers(cluster, 1)
    assert_all_got(pull_everywhere([*first, *late], digest), digest)
    assert bytes_asked(origin) == 1


def test_a_node_whose_disk_lies_harms_nobody(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(4).randbytes(6 * MIB)
    digest = str(origin.add(content))
    liar = add_peers(cluster, 1)[0]
    assert_all_got(pull_everywhere([liar], digest), digest)
    hexes = digest.partition(":")[2]
    stored = liar.data_dir / "store" / "blobs" / "sha256" / hexes[:2] / hexes
    wait_until(stored.exists, "the blob's last fsync and its name")
    with stored.open("r+b") as file:
        file.write(bytes(4 * MIB))
    others = add_peers(cluster, 2)
    assert_all_got(pull_everywhere(others, digest), digest)
    assert bytes_asked(origin) == 1


def test_the_rate_limits_hold_for_torrents(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(5).randbytes(4 * MIB)
    digest = str(origin.add(content))
    slow = add_peers(cluster, 1, "--download-rate", "2MiB")[0]
    answer = pull(slow.proxy, digest)
    assert_all_got([answer], digest)
    assert answer.elapsed_s >= 1.2


def test_without_its_supernode_a_swarm_goes_on(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(6).randbytes(12 * MIB)
    digest = str(origin.add(content))
    peers = add_peers(cluster, NODES, "--download-rate", "3MiB", "--upload-rate", "3MiB")
    with ExitStack() as hanging_up:
        pulls = [hanging_up.enter_context(start_pull(peer.proxy, digest)) for peer in peers]
        for peer in peers:
            wait_for_pieces(peer, 2 * MIB)
        cluster.supernode.kill()
        assert_all_got([running.result() for running in pulls], digest)


def wait_for_pieces(peer: Peer, size_bytes: int) -> None:
    wait_until(lambda: peer.received_bytes("peer") >= size_bytes, f"{size_bytes} bytes at {peer.name}")


def test_a_node_without_torrents_goes_to_the_origin(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(7).randbytes(2 * MIB)
    digest = str(origin.add(content))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        peer = cluster.add_peer(extra=["--torrent-listen", f"127.0.0.1:{port}"])
        cluster.wait_for_sessions(1)
        assert_all_got([pull(peer.proxy, digest)], digest)
    assert_received(peer, passthrough=len(content))
    peer.process.wait_for_line("torrent_unavailable")
    lines = [line for line in peer.process.log() if "torrent_unavailable" in line]
    assert len(lines) == 1
