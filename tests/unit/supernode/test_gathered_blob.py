"""GatheredBlob: what members have of a blob is brought aside and compared with the digest before any of it counts."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import LocalError
from proto.ids import PeerId, peer_name
from proto.pieces import mask_of
from proto.wire.messages import FetchReason
from supernode import gathered_blob
from supernode.control.claims import Offer
from supernode.gathered_blob import GatheredBlob
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from proto.ids import PeerName

BLOB = some_blob(300_000, piece_size_bytes=65_536)
PIECES = range(BLOB.layout.count)


def member(number: int) -> Offer:
    peer = PeerId(bytes([number]) * 32)
    return Offer(peer, PieceSource(peer_name(peer), f"10.0.0.{number}:1"))


ONE, OTHER = member(1), member(2)


class Members:
    """Stands in for a transport: each fetch ends at once, with the bytes of who is asked, or a refusal."""

    def __init__(self, contents: dict[PeerName, bytes], refused: Iterable[tuple[Offer, int]] = ()) -> None:
        self._contents = contents
        self._refused = {(offer.source.peer, piece) for offer, piece in refused}

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        layout = fetch.blob.layout
        if (fetch.source.peer, fetch.piece) in self._refused:
            done(FetchOutcome(fetch.fetch_id, FetchReason.NOT_HELD, 0.0, 0))
            return
        writer = fetch.blob.writer(fetch.piece)
        offset = layout.offset(fetch.piece)
        writer.write(memoryview(self._contents[fetch.source.peer])[offset : offset + layout.length(fetch.piece)])
        writer.finish()
        done(FetchOutcome(fetch.fetch_id, "", 0.0, layout.length(fetch.piece)))

    def cancel(self, fetch_id: int) -> None:
        """Nothing is under way."""


HONEST = Members({ONE.source.peer: BLOB.content, OTHER.source.peer: BLOB.content})


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[BlobHandle]:
    """What the seed has of the blob: its first piece."""
    store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    handle = store.open(BLOB.digest, BLOB.layout)
    writer = handle.writer(0, from_origin=True)
    writer.write(memoryview(BLOB.piece(0)))
    writer.finish()
    yield handle
    handle.close()
    store.close()


def bring(gathered: GatheredBlob, members: Members, cancel: Cancellation | None = None) -> None:
    gathered.bring(members, b"ticket", cancel or Cancellation())  # type: ignore[arg-type]  # as much as is used


def test_pieces_of_several_members_and_the_store_make_the_blob(stored: BlobHandle, tmp_path: Path) -> None:
    offers = {piece: (ONE if piece < 3 else OTHER,) for piece in PIECES[1:]}
    with contextlib.closing(GatheredBlob(stored, offers, tmp_path)) as gathered:
        bring(gathered, HONEST)
        assert {piece: peer for piece, (peer, _) in gathered.given.items()} == {
            piece: offer.peer for piece, (offer,) in offers.items()
        }
        assert gathered.matches(Cancellation())


def test_other_content_does_not_and_it_is_known_who_gave_it(stored: BlobHandle, tmp_path: Path) -> None:
    other = some_blob(300_000, piece_size_bytes=65_536, seed=2)
    members = Members({ONE.source.peer: BLOB.content, OTHER.source.peer: other.content})
    offers = {piece: (ONE if piece < 3 else OTHER,) for piece in PIECES[1:]}
    with contextlib.closing(GatheredBlob(stored, offers, tmp_path)) as gathered:
        bring(gathered, members)
        assert not gathered.matches(Cancellation())
        wrong = {peer for piece, (peer, found) in gathered.given.items() if found != BLOB.hashes[32 * piece :][:32]}
        assert wrong == {OTHER.peer}


def test_what_one_member_does_not_give_is_asked_of_the_next(stored: BlobHandle, tmp_path: Path) -> None:
    members = Members({ONE.source.peer: BLOB.content, OTHER.source.peer: BLOB.content}, [(ONE, 2)])
    with contextlib.closing(GatheredBlob(stored, dict.fromkeys(PIECES[1:], (ONE, OTHER)), tmp_path)) as gathered:
        bring(gathered, members)
        assert gathered.matches(Cancellation())


def test_what_nobody_gives_is_left(stored: BlobHandle, tmp_path: Path) -> None:
    members = Members({ONE.source.peer: BLOB.content}, [(ONE, 3)])
    with contextlib.closing(GatheredBlob(stored, dict.fromkeys(PIECES[1:], (ONE,)), tmp_path)) as gathered:
        bring(gathered, members)
        assert not mask_of(gathered.given) >> 3 & 1


def test_a_cancelled_fetch_ends(stored: BlobHandle, tmp_path: Path) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with (
        contextlib.closing(GatheredBlob(stored, {1: (ONE,)}, tmp_path)) as gathered,
        pytest.raises(FetchCancelled),
    ):
        bring(gathered, HONEST, cancel)


def test_what_would_fill_the_disk_is_not_brought(
    stored: BlobHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered_blob, "DISK_PART", 0.0)
    with pytest.raises(LocalError, match="no room"):
        GatheredBlob(stored, {1: (ONE,)}, tmp_path)


def test_each_takes_its_room_before_the_next_looks(stored: BlobHandle, tmp_path: Path) -> None:
    with contextlib.closing(GatheredBlob(stored, {1: (ONE,), 3: (ONE,)}, tmp_path)) as gathered:
        taken_bytes = os.fstat(gathered.slice_of(1).descriptor).st_blocks * 512
        assert taken_bytes >= BLOB.layout.length(1) + BLOB.layout.length(3)
        assert taken_bytes < BLOB.layout.size_bytes


def test_where_the_disk_has_not_the_room_that_it_says_nothing_is_brought(
    stored: BlobHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LocalError, match="No space left"):
        GatheredBlob(stored, {1: (ONE,)}, tmp_path)


class Sleeper(Members):
    """Members that give so many pieces and then nothing more."""

    def __init__(self, pieces: int) -> None:
        super().__init__({ONE.source.peer: BLOB.content})
        self._left = pieces
        self._awaited: dict[int, Callable[[FetchOutcome], None]] = {}

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        if self._left:
            self._left -= 1
            super().start(fetch, done)
        else:
            self._awaited[fetch.fetch_id] = done

    def cancel(self, fetch_id: int) -> None:
        self._awaited.pop(fetch_id)(FetchOutcome(fetch_id, FetchReason.CANCELLED, 0.0, 0))


@pytest.mark.parametrize(("pieces", "rate_bytes_s"), [(0, 1), (3, 1 << 30), (3, 1)])
def test_members_that_stand_still_are_left_however_much_they_offer(
    stored: BlobHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int, rate_bytes_s: int
) -> None:
    monkeypatch.setattr(gathered_blob, "RATE_MIN_BYTES_S", rate_bytes_s)
    now_s = 0.0

    def monotonic() -> float:
        """Time passes once they stand still."""
        nonlocal now_s
        now_s += 10.0 if len(gathered.given) == pieces else 0.0
        return now_s

    monkeypatch.setattr(gathered_blob, "time", mock.Mock(monotonic=monotonic))
    with contextlib.closing(GatheredBlob(stored, dict.fromkeys(PIECES[1:], (ONE,)), tmp_path)) as gathered:
        bring(gathered, Sleeper(pieces))
        assert len(gathered.given) == pieces
