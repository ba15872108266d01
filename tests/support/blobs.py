"""Blobs for tests: random content from a seed, its cut and its piece hashes, and stores that hold it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import blake3

from proto.ids import Digest
from proto.pieces import PieceLayout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peer.store.base import BlobHandle, BlobStore


@dataclass(frozen=True)
class SomeBlob:
    """Content and everything that follows from it."""

    content: bytes
    digest: Digest
    layout: PieceLayout
    hashes: bytes

    def piece(self, index: int) -> bytes:
        """The bytes of one piece."""
        start = self.layout.offset(index)
        return self.content[start : start + self.layout.length(index)]


def some_blob(size_bytes: int, *, piece_size_bytes: int = 1024, seed: int = 1, algorithm: str = "sha256") -> SomeBlob:
    """The same for the same arguments."""
    content = random.Random(seed).randbytes(size_bytes)
    layout = PieceLayout(size_bytes, piece_size_bytes)
    pieces = (content[start : start + piece_size_bytes] for start in range(0, size_bytes, piece_size_bytes))
    hashes = b"".join(blake3.blake3(piece).digest() for piece in pieces)
    return SomeBlob(content, Digest.of(content, algorithm), layout, hashes)


def write_piece(handle: BlobHandle, blob: SomeBlob, piece: int) -> None:
    """As a transport would, with the hash known or not."""
    writer = handle.writer(piece, from_origin=True)
    try:
        writer.write(memoryview(blob.piece(piece)))
        writer.finish()
    finally:
        writer.abort()


def fill(store: BlobStore, blob: SomeBlob, pieces: Iterable[int] | None = None) -> BlobHandle:
    """Put these pieces into the store, or all of them and check the digest; the handle is the caller's to close."""
    handle = store.open(blob.digest, blob.layout)
    for piece in range(blob.layout.count) if pieces is None else pieces:
        write_piece(handle, blob, piece)
    if pieces is None:
        assert handle.check_digest()
    return handle
