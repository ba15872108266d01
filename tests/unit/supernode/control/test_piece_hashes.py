"""Piece hashes: what is learned comes out in signed runs, whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.ids import Digest
from proto.pieces import PieceLayout
from proto.wire.tickets import Identity, check_hashes
from supernode.control import piece_hashes
from supernode.control.piece_hashes import BlobHashes
from supernode.signer import IdentitySigner

IDENTITY = Identity.generate()
SIGNER = IdentitySigner(IDENTITY)
BLOB = Digest.of(b"blob")
COUNT = 40
LAYOUT = PieceLayout(COUNT * 1000, 1000)


def hash_for(piece: int) -> bytes:
    return bytes([piece]) * 32


@settings(max_examples=30)
@given(st.permutations(range(COUNT)), st.sets(st.integers(0, COUNT - 1)))
def test_signed_runs_cover_all_that_is_missing(order: list[int], ask_after: set[int]) -> None:
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    sent = 0
    received: dict[int, bytes] = {}
    for step, piece in enumerate(order):
        book.learn(piece, hash_for(piece))
        if step in ask_after or step == COUNT - 1:
            for signed in book.signed_for(book.known & ~sent):
                check_hashes(IDENTITY.peer, BLOB, LAYOUT, signed.first, signed.hashes, signed.signature)
                for position in range(len(signed.hashes) // 32):
                    received[signed.first + position] = signed.hashes[position * 32 : position * 32 + 32]
            sent = book.known
    assert received == {piece: hash_for(piece) for piece in range(COUNT)}


def test_what_came_one_by_one_is_signed_as_one_run() -> None:
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    for piece in range(COUNT):
        book.learn(piece, hash_for(piece))
        book.signed_for(1 << piece)
    assert [(signed.first, len(signed.hashes) // 32) for signed in book.signed_for(book.known)] == [(0, COUNT)]


def test_a_run_is_signed_once_for_all_who_miss_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_hashes, "RUNS_MAX", 2)
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    for piece in range(COUNT):
        book.learn(piece, hash_for(piece))
    (first,) = book.signed_for(0b111)
    assert book.signed_for(0b111)[0] is first
    for piece in range(2):
        book.signed_for(1 << piece)
    assert book.signed_for(0b111)[0] is not first, "the oldest was forgotten"


def test_a_hash_is_not_replaced_by_another() -> None:
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    book.learn(3, hash_for(3))
    book.learn(3, hash_for(3))
    with pytest.raises(ValueError, match="two different"):
        book.learn(2, hash_for(2) + hash_for(9))
    assert book.hash_of(2) is None


def test_runs_outside_the_blob_are_refused() -> None:
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    for first, hashes in ((COUNT, hash_for(1)), (-1, hash_for(1)), (0, b"short"), (COUNT - 1, hash_for(1) * 2)):
        with pytest.raises(ValueError, match="do not fit"):
            book.learn(first, hashes)


def test_a_voided_book_passes_nothing_on() -> None:
    book = BlobHashes(SIGNER, BLOB, LAYOUT)
    book.learn(0, hash_for(0))
    book.clear()
    assert book.signed_for(LAYOUT.full_mask) == []
