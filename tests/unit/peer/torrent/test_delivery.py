"""A node's torrents by the supernode's word: who takes part, and what the downloader hears."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer import config
from peer.downloader.contract import PayloadCame, PieceArrived
from peer.store.disk import DiskStore
from peer.torrent.delivery import TorrentDelivery
from proto.pieces import KIB, MIB
from proto.wire.messages import TorrentOpened, TorrentPeers, Vouched
from tests.support.blobs import fill, some_blob
from tests.support.torrents import metainfo_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.downloader.contract import Event

BLOB = some_blob(MIB + 5, piece_size_bytes=256 * KIB)
SWARM = 3
SWARMS = {SWARM: (BLOB.digest, BLOB.layout)}


@dataclass
class Node:
    store: DiskStore
    delivery: TorrentDelivery
    events: list[Event]
    received_bytes: list[int]


def make_node(folder: Path) -> Node:
    store = DiskStore(folder, size_limit_bytes=1 << 30, free_floor_bytes=0)
    events: list[Event] = []
    received: list[int] = []
    flags = ["--supernode", "http://127.0.0.1:1", "--torrent-listen", "127.0.0.1:0", "--data-dir", str(folder)]
    delivery = TorrentDelivery(store, config.load(flags, {}), events.append, received.append)
    return Node(store, delivery, events, received)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    first, second = make_node(tmp_path / "first"), make_node(tmp_path / "second")
    yield first, second
    for node in (first, second):
        node.delivery.close()
        node.store.close()


def test_a_blob_comes_from_the_node_that_the_supernode_names(nodes: tuple[Node, Node]) -> None:
    holder, asker = nodes
    fill(holder.store, BLOB).close()
    holder.delivery.received(TorrentOpened(SWARM, metainfo_of(BLOB)), SWARMS)
    handle = asker.store.open(BLOB.digest, BLOB.layout)
    handle.trust_hashes(0, BLOB.hashes)
    asker.delivery.session_begins()
    asker.delivery.node_known(7, f"127.0.0.1:{holder.delivery.session_begins()}")
    asker.delivery.blob_opened(BLOB.digest)
    assert asker.delivery.received(TorrentOpened(SWARM, metainfo_of(BLOB)), SWARMS)
    # Of node 8 nothing is known.
    assert asker.delivery.received(TorrentPeers(SWARM, (7, 8)), SWARMS)
    arrived = {PieceArrived(BLOB.digest, piece) for piece in range(BLOB.layout.count)}
    wait_until(lambda: arrived <= set(asker.events), "word of every piece")
    # Counted before it is told.
    assert sum(asker.received_bytes) == BLOB.layout.size_bytes
    wait_until(lambda: PayloadCame(BLOB.digest) in asker.events, "word of its payload")
    handle.close()


def test_other_messages_are_not_its_own(nodes: tuple[Node, Node]) -> None:
    assert not nodes[0].delivery.received(Vouched(SWARM), SWARMS)


def test_a_torrent_of_a_swarm_that_is_gone_is_ignored(nodes: tuple[Node, Node]) -> None:
    assert nodes[0].delivery.received(TorrentOpened(SWARM, b""), {})


def test_a_torrent_of_something_else_is_said_to_be_ignored(
    nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert nodes[0].delivery.received(TorrentOpened(SWARM, b"nonsense"), SWARMS)
    assert "torrent_ignored" in caplog.text
