"""The meta file of a blob: how it is cut and in which run of the machine its held bits were set. Nothing else.

The boot id changes when the machine restarts. Held bits set in an earlier run may stand for bytes that never
reached the disk, so they are verified again before use; a mere crash of the process loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from peer.store.files import replace
from proto.errors import FrameInvalid
from proto.pieces import PieceLayout

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
