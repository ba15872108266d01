"""The small files beside a partial or complete blob: how it is cut, and which of its pieces count as held.

The boot id changes when the machine restarts. Held bits that were set in an earlier run may stand for bytes that never
reached the disk, so those pieces are verified again before use. A crash of the process alone loses nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from peer.store.files import replace, write_all
from proto.errors import FrameInvalid
from proto.pieces import PieceLayout, mask_to_bytes

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class MetaCorrupt(Exception):
    """Inside the store only: these files cannot be trusted, drop the blob."""


def current_boot_id() -> str:
    """The kernel's own, 36 characters."""
    return _BOOT_ID.read_text("ascii").strip()


@dataclass(frozen=True, slots=True)
class BlobMeta:
    """What `HEX.json` says."""

    layout: PieceLayout
    boot_id: str

    def write(self, path: Path) -> None:
        """Replace the file. Raises OSError."""
        fields = {
            "size_bytes": self.layout.size_bytes,
            "piece_size_bytes": self.layout.piece_size_bytes,
            "boot_id": self.boot_id,
        }
        replace(path, json.dumps(fields).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> BlobMeta:
        """Raises MetaCorrupt, or OSError."""
        try:
            fields = json.loads(path.read_bytes())
            size, piece_size = fields["size_bytes"], fields["piece_size_bytes"]
            boot_id = fields["boot_id"]
        except (ValueError, KeyError, TypeError):
            raise MetaCorrupt("its meta file is torn") from None
        if type(size) is not int or type(piece_size) is not int or type(boot_id) is not str:
            raise MetaCorrupt("its meta file has wrong types")
        try:
            return cls(PieceLayout(size, piece_size), boot_id)
        except FrameInvalid as error:
            raise MetaCorrupt(str(error)) from None


class HeldFile:
    """`HEX.held`, the bitfield of a partial blob. Not safe for concurrent use: the blob's lock guards it.

    Bytes and hash of a piece are in their files before its bit is; that order is the blob's to keep.
    """

    def __init__(self, count: int, descriptor: int) -> None:
        self._count = count
        self._descriptor = descriptor

    def add(self, piece: int, held: int) -> None:
        """The piece is held, as the mask `held` says of it and all others. Raises OSError."""
        write_all(self._descriptor, bytes([held >> (piece & ~7) & 0xFF]), piece >> 3)

    def write(self, held: int) -> None:
        """The whole mask. Raises OSError."""
        write_all(self._descriptor, mask_to_bytes(held, self._count), 0)

    def sync(self) -> None:
        """Make it durable. Raises OSError."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
