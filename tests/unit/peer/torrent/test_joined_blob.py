"""Whom a blob's pieces are asked of: all at once, or one at a time."""

from __future__ import annotations

from peer.torrent.joined_blob import KnownTorrent
from proto.pieces import PieceLayout


def known(*peers: str) -> KnownTorrent:
    return KnownTorrent(PieceLayout(1, 1), b"", list(peers))


def test_all_are_asked_at_once() -> None:
    assert known("a:1", "b:1").asked == ["a:1", "b:1"]


def test_in_doubt_each_is_asked_alone_and_then_all_again() -> None:
    torrent = known("a:1", "b:1", "a:1")
    asked = []
    for _ in range(3):
        torrent.ask_next_alone()
        asked.append(torrent.asked)
    assert asked == [["a:1"], ["b:1"], torrent.peers]


def test_who_is_named_meanwhile_has_its_turn_too() -> None:
    torrent = known("a:1")
    torrent.ask_next_alone()
    torrent.add_peers(["b:1"])
    assert torrent.asked == ["a:1"]
    torrent.ask_next_alone()
    assert torrent.asked == ["b:1"]
