"""A disk that rots: bits flipped in what a program's store holds, as a disk flips them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proto.ids import Digest

if TYPE_CHECKING:
    from pathlib import Path


def stored_path(data_dir: Path, digest: str) -> Path:
    """Where the store below `data_dir` keeps a complete blob."""
    named = Digest.parse(digest)
    return data_dir / "store" / "blobs" / named.algorithm / named.hex[:2] / named.hex


def flip(path: Path, *offsets: int) -> None:
    """Flip one bit at each offset. The file's times stay: a disk tells nobody."""
    with path.open("r+b", buffering=0) as file:
        status = os.fstat(file.fileno())
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        # By the file, not its name: a running program may find the flip, and move the blob away, at once.
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
