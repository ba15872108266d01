"""The bitfield of a partial blob as a file: which of its pieces count as held after a crash of the process.

Bytes and hash of a piece are in their files before its bit is; that order and the lock are the blob's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peer.store.files import create, write_all
from proto.pieces import Bitfield

if TYPE_CHECKING:
    from pathlib import Path


class HeldFile:
    """Not safe for concurrent use: the blob's lock guards it."""

    def __init__(self, count: int, descriptor: int) -> None:
        self._count = count
        self._descriptor = descriptor

    @staticmethod
    def read(path: Path, count: int) -> int:
        """The mask on disk. Raises FrameInvalid for a torn one, OSError."""
        return Bitfield.from_bytes(path.read_bytes(), count).mask

    @classmethod
    def begin(cls, path: Path, count: int) -> HeldFile:
        """With no piece. Raises OSError."""
        held_file = cls(count, create(path))
        try:
            held_file.write(0)
        except BaseException:
            held_file.close()
            raise
        return held_file

    @classmethod
    def open(cls, path: Path, count: int) -> HeldFile:
        """As it is. Raises OSError."""
        return cls(count, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def add(self, piece: int, held: int) -> None:
        """The piece is held, as the mask `held` says of it and all others. Raises OSError."""
        write_all(self._descriptor, bytes([held >> (piece & ~7) & 0xFF]), piece >> 3)

    def write(self, held: int) -> None:
        """The whole mask. Raises OSError."""
        write_all(self._descriptor, Bitfield(self._count, held).to_bytes(), 0)

    def sync(self) -> None:
        """Make it durable. Raises OSError."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
