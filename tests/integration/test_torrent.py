"""Clusters whose pieces travel by BitTorrent: real processes, and clients that pull through `/v2/`.

They share one cluster; each test has a blob of its own, and a peer of its own where it needs a special one.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, contextmanager
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


@pytest.fixture(scope="module")
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        running.keep_alive = False
        yield running


@contextmanager
def torrents(folder: Path, origin: FakeOrigin, *flags: str) -> Iterator[Cluster]:
    """A supernode and peers."""
    with Cluster(
        folder,
        origin.authority,
        supernode_flags=["--transport", "torrent", *ANY_PORT],
        peer_flags=["--log-level", "debug", *ANY_PORT, *flags],
    ) as running:
        running.add_peers([None] * NODES)
        running.wait_for_sessions(NODES)
        yield running


@pytest.fixture(scope="module")
def cluster(origin: FakeOrigin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with torrents(tmp_path_factory.mktemp("cluster"), origin) as running:
        yield running


def pull_everywhere(peers: Sequence[Peer], digest: str) -> list[Answer]:
    with ExitStack() as hanging_up:
        pulls = [hanging_up.enter_context(start_pull(peer.proxy, digest)) for peer in peers]
        return [running.result() for running in pulls]


def assert_all_got(answers: Sequence[Answer], digest: str) -> None:
    assert all(answer.complete for answer in answers), answers
    assert {answer.sha256 for answer in answers} == {digest}


def asked(origin: FakeOrigin, digest: str) -> int:
    """How often the origin was asked for the blob by GET."""
    return sum(request.target.endswith(digest) for request in origin.blob_requests("GET"))


# The first here: what peers have received is counted from their start.
def test_cold_nodes_pull_at_once_and_the_origin_is_asked_once(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(1).randbytes(9 * MIB + 12_345)
    digest = str(origin.add(content))
    assert_all_got(pull_everywhere(cluster.peers, digest), digest)
    assert asked(origin, digest) == 1
    for peer in cluster.peers:
        assert_received(peer, peer=len(content), seed=0, origin=0, passthrough=0)
        assert peer.metrics().value("layercast_leases_total", outcome="granted") == 0


@pytest.mark.parametrize("size_bytes", [500, 100_000, 262_144])
def test_a_blob_of_one_piece_and_a_tiny_one_arrive_too(cluster: Cluster, origin: FakeOrigin, size_bytes: int) -> None:
    digest = str(origin.add(random.Random(size_bytes).randbytes(size_bytes)))
    assert_all_got(pull_everywhere(cluster.peers, digest), digest)
    assert asked(origin, digest) == 1


def test_a_late_node_is_served_by_those_before_it(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(2).randbytes(6 * MIB)
    digest = str(origin.add(content))
    assert_all_got(pull_everywhere(cluster.peers, digest), digest)
    with cluster.guest() as late:
        assert_all_got([pull(late.proxy, digest)], digest)
        assert_received(late, peer=len(content))
    assert asked(origin, digest) == 1


def test_a_restarted_node_serves_what_it_holds(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(3).randbytes(6 * MIB)
    digest = str(origin.add(content))
    with cluster.guest() as first:
        assert_all_got([pull(first.proxy, digest)], digest)
        first.stop()
        first.start()
        cluster.wait_for_sessions(len(cluster.peers))
        assert_all_got(pull_everywhere([first, cluster.peers[0]], digest), digest)
    assert asked(origin, digest) == 1


def test_a_node_whose_disk_lies_harms_nobody(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(4).randbytes(6 * MIB)
    digest = str(origin.add(content))
    with cluster.guest() as liar:
        assert_all_got([pull(liar.proxy, digest)], digest)
        hexes = digest.partition(":")[2]
        stored = liar.data_dir / "store" / "blobs" / "sha256" / hexes[:2] / hexes
        wait_until(stored.exists, "the blob's last fsync and its name")
        with stored.open("r+b") as file:
            file.write(bytes(4 * MIB))
        assert_all_got(pull_everywhere(cluster.peers[:2], digest), digest)
    assert asked(origin, digest) == 1


def test_the_rate_limits_hold_for_torrents(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(5).randbytes(4 * MIB)
    digest = str(origin.add(content))
    with cluster.guest(extra=["--download-rate", "2MiB"]) as slow:
        answer = pull(slow.proxy, digest)
    assert_all_got([answer], digest)
    assert answer.elapsed_s >= 1.2


def test_a_node_without_torrents_goes_to_the_origin(cluster: Cluster, origin: FakeOrigin) -> None:
    content = random.Random(7).randbytes(2 * MIB)
    digest = str(origin.add(content))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with cluster.guest(extra=["--torrent-listen", f"127.0.0.1:{port}"]) as peer:
            assert_all_got([pull(peer.proxy, digest)], digest)
            assert_received(peer, passthrough=len(content))
            peer.process.wait_for_line("torrent_unavailable")
            lines = [line for line in peer.process.log() if "torrent_unavailable" in line]
    assert len(lines) == 1


def test_without_its_supernode_a_swarm_goes_on(tmp_path: Path, origin: FakeOrigin) -> None:
    content = random.Random(6).randbytes(12 * MIB)
    digest = str(origin.add(content))
    rates = ("--download-rate", "3MiB", "--upload-rate", "3MiB")
    with torrents(tmp_path, origin, *rates) as cluster, ExitStack() as hanging_up:
        pulls = [hanging_up.enter_context(start_pull(peer.proxy, digest)) for peer in cluster.peers]
        for peer in cluster.peers:
            wait_for_pieces(peer, 2 * MIB)
        cluster.supernode.kill()
        assert_all_got([running.result() for running in pulls], digest)


def wait_for_pieces(peer: Peer, size_bytes: int) -> None:
    wait_until(lambda: peer.received_bytes("peer") >= size_bytes, f"{size_bytes} bytes at {peer.name}")
