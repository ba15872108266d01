"""The records that a store takes and gives. Its operations: peer.store.disk, peer.store.handle, peer.store.writer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proto.ids import Digest
    from proto.pieces import PieceLayout


# Of a piece's BLAKE3.
HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SignedHashes:
    """A run of piece hashes as the supernode signed them (proto.wire.tickets); kept so that peers can pass them on."""

    first: int
    hashes: bytes
    signature: bytes

    @property
    def count(self) -> int:
        """How many pieces."""
        return len(self.hashes) // HASH_BYTES

    @property
    def pieces(self) -> int:
        """Which (mask)."""
        return ((1 << self.count) - 1) << self.first


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One line of the inventory."""

    digest: Digest
    layout: PieceLayout
    held: int
    complete: bool


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes that lie in a file, in place of a view of them: the store may have the kernel copy them or share them."""

    descriptor: int
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> FileSlice:
        """A part of it, as of a memoryview."""
        start, stop, _ = part.indices(self.length)
        return FileSlice(self.descriptor, self.offset + start, max(0, stop - start))


Chunk = memoryview | FileSlice
