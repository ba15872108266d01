"""The files of one blob while it is in use: its bytes, how it is cut, which pieces count as held, and their hashes.

Opens them, changes them and gives them their names; what is held and what may be changed is peer.store.blob's to say.

The boot id changes when the machine restarts. Held bits that were set in an earlier run may stand for bytes that never
reached the disk, so those pieces are verified again before use. A crash of the process alone loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peer.store.files import create, open_read_write, open_to_use, replace, sync, write_all
from peer.store.hashes import StoredHashes
from proto.errors import FrameInvalid
from proto.pieces import PieceLayout, mask_from_bytes, mask_to_bytes

if TYPE_CHECKING:
    from peer.store.paths import BlobPaths
    from proto.ids import Digest

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


class BlobFiles:
    """Not safe for concurrent use: the blob's lock guards it. Each operation raises OSError.

    Bytes and hash of a piece are in their files before its held bit is; that order is the blob's to keep.
    """

    def __init__(self, digest: Digest, layout: PieceLayout, paths: BlobPaths) -> None:
        self._digest = digest
        self._layout = layout
        self._paths = paths
        # Descriptors of the bytes and of the held bits, below 0 while they are not open.
        self.data = self._held = -1
        self._hashes: StoredHashes | None = None

    # --- from disk, and back -----------------------------------------------------------------------------------

    def scan(self) -> tuple[int, os.stat_result | None]:
        """At start: the pieces held (mask), and of a complete blob the state of its file. Raises MetaCorrupt too."""
        size, paths = self._layout.size_bytes, self._paths
        if paths.complete.exists():
            status = paths.complete.stat()
            if status.st_size != size:
                raise MetaCorrupt("its file has another size")
            return self._layout.full_mask, status
        if not paths.partial.exists() or paths.partial.stat().st_size > size:
            raise MetaCorrupt("its file is missing or too long")
        try:
            return mask_from_bytes(paths.held.read_bytes(), self._layout.count), None
        except (FileNotFoundError, FrameInvalid):
            raise MetaCorrupt("its bitfield is torn") from None

    def create(self, boot_id: str) -> None:
        """Begin them; the meta file comes last and makes the others count."""
        self._paths.make_folders()
        self.data = create(self._paths.partial)
        self._hashes = StoredHashes(self._digest, self._layout.count, create(self._paths.hashes))
        self._held = create(self._paths.held)
        self.write_held(0)
        BlobMeta(self._layout, boot_id).write(self._paths.meta)

    def open(self, *, complete: bool) -> None:
        """Open what is there."""
        self.data = open_to_use(self._paths.complete) if complete else open_read_write(self._paths.partial)
        if not complete:
            self._held = open_read_write(self._paths.held)

    def close(self) -> None:
        """Idempotent."""
        if self._hashes is not None:
            self._hashes.close()
        for descriptor in (self.data, self._held):
            if descriptor >= 0:
                os.close(descriptor)
        self.data, self._held, self._hashes = -1, -1, None

    @property
    def hashes(self) -> StoredHashes:
        """Read when they are first needed: sending a piece of a complete blob needs none."""
        if self._hashes is None:
            self._hashes = StoredHashes.load(self._digest, self._layout.count, self._paths.hashes)
        return self._hashes

    # --- what is held ------------------------------------------------------------------------------------------

    def add_held(self, piece: int, held: int) -> None:
        """The piece is held, as the mask `held` says of it and all others."""
        if self._held < 0:
            self.write_held(held)
        else:
            write_all(self._held, bytes([held >> (piece & ~7) & 0xFF]), piece >> 3)

    def write_held(self, held: int) -> None:
        """The whole mask."""
        if self._held < 0:  # a complete blob became partial on a disk that took no note of it
            self.become_partial(held)
        else:
            write_all(self._held, mask_to_bytes(held, self._layout.count), 0)

    def clear(self) -> None:
        """Nothing is held. In this order a crash in between leaves no bit without its bytes."""
        self.write_held(0)
        self.hashes.clear()
        os.ftruncate(self.data, 0)

    # --- names -------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make bytes and cut durable; needs no lock."""
        os.fdatasync(self.data)
        sync(self._paths.meta)

    def become_complete(self) -> os.stat_result:
        """Hashes first, the name after. Returns the state of the file."""
        self.hashes.sync()
        self._paths.partial.rename(self._paths.complete)
        return os.fstat(self.data)

    def sync_names(self) -> None:
        """Make the complete blob's name durable; needs no lock."""
        for path in (self._paths.complete, self._paths.partial, self._paths.meta):
            sync(path.parent)
        self._paths.held.unlink(missing_ok=True)

    def become_partial(self, held: int) -> None:
        """Of a complete blob. The name comes last: until then it is checked again."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        self._held = create(self._paths.held)
        self.write_held(held)
        with contextlib.suppress(FileNotFoundError):  # renamed before
            self._paths.complete.rename(self._paths.partial)
