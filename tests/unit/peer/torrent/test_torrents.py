"""Whether a node has torrents: libtorrent is asked for when a supernode wants it, and its absence is said once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from peer.torrent.torrents import Torrents
from peer.torrent.transport import TorrentTransport
from peer.transport.client import HttpTransport
from proto.errors import ConfigError
from proto.ids import Digest
from proto.pieces import PieceLayout
from proto.wire.messages import SCHEDULED, TORRENT
from proto.wire.tickets import Identity
from tests.support.torrents import Told, torrent_swarms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.torrent.swarms import TorrentSwarms


@pytest.fixture
def transport() -> Iterator[TorrentTransport]:
    made = TorrentTransport(HttpTransport(Identity.generate(), workers=1))
    yield made
    made.close()


def failing(error: Exception) -> Callable[[], TorrentSwarms]:
    def begin() -> TorrentSwarms:
        raise error

    return begin


@pytest.mark.parametrize("error", [ImportError("No module named 'libtorrent'"), ConfigError("torrent address: in use")])
def test_a_node_that_cannot_says_why_and_has_no_port(
    transport: TorrentTransport, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    torrents = Torrents(transport, failing(error))
    with caplog.at_level(logging.ERROR):
        assert torrents.port_for(TORRENT) == 0
    (line,) = caplog.messages
    assert str(error) in line
    assert "BitTorrent" in line


def test_nothing_is_begun_for_a_cluster_that_uses_leases(transport: TorrentTransport) -> None:
    assert Torrents(transport, failing(AssertionError("begun"))).port_for(SCHEDULED) == 0


def test_without_torrents_everything_else_does_nothing() -> None:
    torrents, digest = Torrents(), Digest.of(b"x")
    assert not torrents.offer(digest, PieceLayout.of(1), b"")
    torrents.hurry(digest, 0)
    torrents.leave(digest)
    torrents.give_way(digest)
    assert torrents.counters() == (0, 0)


def test_the_swarms_are_begun_once(transport: TorrentTransport, tmp_path: Path) -> None:
    store = DiskStore(tmp_path, size_limit_bytes=1 << 20, free_floor_bytes=0)
    begun: list[TorrentSwarms] = []

    def begin() -> TorrentSwarms:
        begun.append(torrent_swarms(store, Told()))
        return begun[-1]

    torrents = Torrents(transport, begin)
    assert torrents.port_for(TORRENT) == torrents.port_for(TORRENT) == begun[0].port
    assert torrents.port_for(SCHEDULED) == 0
    assert len(begun) == 1
    transport.close()
    store.close()
