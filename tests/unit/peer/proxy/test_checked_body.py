"""Bodies that end whole only if their digest has passed, also where the client has the first bytes from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.node.blobs import DigestMismatch
from peer.proxy.checked_body import WITHHELD_BYTES, CheckedBody, RepeatedBody
from peer.store.disk import DiskStore
from proto.ids import Digest
from tests.support.blobs import fill, some_blob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle

PIECE_BYTES = 64 * 1024
BLOB = some_blob(6 * PIECE_BYTES + 1000, piece_size_bytes=PIECE_BYTES)
HELD = 4


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[BlobHandle]:
    """The first pieces are held."""
    store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    handle = fill(store, BLOB, range(HELD))
    yield handle
    handle.close()
    store.close()


@given(st.lists(st.integers(1, 3 * WITHHELD_BYTES), max_size=2), st.booleans())
def test_the_last_64_kib_wait_for_the_digest_however_the_body_is_cut(sizes: list[int], right: bool) -> None:
    content = BLOB.content[: sum(sizes)]
    digest = Digest.of(content if right else content + b"!")
    sent = bytearray()
    checked = CheckedBody(digest, sent.extend, digest.hasher())
    start = 0
    for size in sizes:
        checked.write(start, memoryview(content)[start : start + size])
        start += size
    if right:
        checked.finish()
        assert sent == content
    else:
        with pytest.raises(DigestMismatch):
            checked.finish()
        assert sent == content[: max(0, len(content) - WITHHELD_BYTES)]


@pytest.mark.parametrize("sent_bytes", [0, 1, PIECE_BYTES, HELD * PIECE_BYTES - 1, HELD * PIECE_BYTES])
@pytest.mark.parametrize("chunk_bytes", [1000, 100_000])
def test_what_a_client_has_is_not_sent_again(handle: BlobHandle, sent_bytes: int, chunk_bytes: int) -> None:
    sent = bytearray(BLOB.content[:sent_bytes])
    body = RepeatedBody(handle, sent_bytes, sent.extend)
    for start in range(0, len(BLOB.content), chunk_bytes):
        body.write(start, memoryview(BLOB.content)[start : start + chunk_bytes])
    body.finish()
    assert sent == BLOB.content


def test_a_client_that_has_other_bytes_gets_no_end(handle: BlobHandle) -> None:
    """What the origin sends now is the blob, and what it sent before was another."""
    other = some_blob(len(BLOB.content), piece_size_bytes=PIECE_BYTES, seed=2)
    body = RepeatedBody(handle, PIECE_BYTES + 5, lambda content: None)
    with pytest.raises(DigestMismatch, match="piece 1"):
        body.write(0, memoryview(BLOB.piece(0) + other.piece(1)))


def test_what_cannot_be_compared_is_not_finished(handle: BlobHandle) -> None:
    with pytest.raises(EOFError):
        RepeatedBody(handle, HELD * PIECE_BYTES + 1, lambda content: None)
