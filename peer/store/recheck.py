"""Reading pieces again that a store holds, to see which have rotted on its disk. It drops and marks nothing.

A piece that cannot be read is as good as rotten. Where a piece's hash is not known any more, the digest of the whole
blob decides, and the hashes are learnt anew from it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Protocol

import blake3

from peer.store.base import SignedHashes
from peer.store.digest import hash_piece
from peer.store.files import CHUNK_BYTES
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from hashlib import _Hash

    from peer.store.hashes import StoredHashes
    from proto.ids import Digest
    from proto.pieces import PieceLayout

log = logging.getLogger(__name__)


class HeldPieces(Protocol):
    """A blob that is pinned, as it is read again here."""

    digest: Digest
    layout: PieceLayout
    held: int
    complete: bool

    @property
    def descriptor(self) -> int:
        """The data file."""
        ...

    def stored_hashes(self) -> AbstractContextManager[StoredHashes]:
        """Under the blob's lock. Raises LocalError for trouble with the disk."""
        ...


def rotten_pieces(blob: HeldPieces, pieces: int) -> int:
    """Those of the held pieces (mask) that are not what they were. Raises LocalError when hashes cannot be read."""
    with blob.stored_hashes() as hashes:
        expected = {piece: hashes.of(piece) for piece in indices(pieces)}
    if blob.complete and None in expected.values():
        return _rotten_by_digest(blob)
    buffer = _buffer(blob)
    rotten = 0
    for piece, piece_hash in expected.items():
        hasher = blake3.blake3()
        if not _read(blob, piece, [hasher], buffer) or hasher.digest() != piece_hash:
            rotten |= 1 << piece
    return rotten


def read_right(blob: HeldPieces, piece: int) -> memoryview | None:
    """The bytes of a piece that match its hash; None where they do not, or cannot be read. Raises LocalError."""
    with blob.stored_hashes() as hashes:
        expected = hashes.of(piece)
    try:
        content = os.pread(blob.descriptor, blob.layout.length(piece), blob.layout.offset(piece))
    except OSError as error:
        log.error("store: piece %d of blob %s cannot be read: %s", piece, blob.digest.short, error.strerror)
        return None
    return memoryview(content) if blake3.blake3(content).digest() == expected else None


def _rotten_by_digest(blob: HeldPieces) -> int:
    """Of a complete blob: none, if it matches its digest; else whatever its hashes do not speak for."""
    whole, buffer, found = blob.digest.hasher(), _buffer(blob), []
    for piece in range(blob.layout.count):
        hasher = blake3.blake3()
        found.append(hasher.digest() if _read(blob, piece, [hasher, whole], buffer) else b"")
    with blob.stored_hashes() as hashes:
        if whole.hexdigest() == blob.digest.hex:
            hashes.learn(SignedHashes(0, b"".join(found), b""), 0)
            return 0
        return sum(1 << piece for piece, piece_hash in enumerate(found) if hashes.of(piece) != piece_hash)


def _buffer(blob: HeldPieces) -> memoryview:
    return memoryview(bytearray(min(CHUNK_BYTES, blob.layout.size_bytes)))


def _read(blob: HeldPieces, piece: int, hashers: Sequence[_Hash | blake3.blake3], buffer: memoryview) -> bool:
    """Put the piece into every hasher; False when it cannot be read to its end."""
    try:
        return hash_piece(blob.descriptor, blob.layout, piece, hashers, buffer)
    except OSError as error:
        log.error("store: piece %d of blob %s cannot be read: %s", piece, blob.digest.short, error.strerror)
        return False
