"""What a program's store holds on disk, read from outside while it runs, or after it was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.store.blob_files import BlobMeta
from proto.ids import Digest
from proto.pieces import mask_from_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from proto.pieces import PieceLayout


def held_ranges(data_dir: Path, digest: str) -> list[tuple[int, int]]:
    """The half-open byte ranges of verified pieces of a blob in the store below `data_dir`; none if it has none."""
    named = Digest.parse(digest)
    folder = f"{named.algorithm}/{named.hex[:2]}/{named.hex}"
    meta = data_dir / "store" / "meta" / f"{folder}.json"
    try:
        layout = BlobMeta.read(meta).layout
        if (data_dir / "store" / "blobs" / folder).exists():
            return layout.byte_ranges(layout.full_mask)
        held = (data_dir / "store" / "meta" / f"{folder}.held").read_bytes()
    except FileNotFoundError:  # none yet, or it is just being evicted or completed: who waits looks again
        return []
    return layout.byte_ranges(mask_from_bytes(held, layout.count))


def stored_layout(data_dir: Path, digest: str) -> PieceLayout:
    """How a blob that is there is cut: the supernode decides by what it has measured. Raises FileNotFoundError."""
    named = Digest.parse(digest)
    folder = f"{named.algorithm}/{named.hex[:2]}/{named.hex}"
    return BlobMeta.read(data_dir / "store" / "meta" / f"{folder}.json").layout


def held_bytes(data_dir: Path, digest: str) -> int:
    """How many bytes of the blob are held there."""
    return sum(end - start for start, end in held_ranges(data_dir, digest))


def overlap_bytes(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
    """How many bytes of the ranges in `some` (which do not overlap each other) lie in one of `others`, as often."""
    return sum(max(0, min(end, last) - max(start, first)) for start, end in some for first, last in others)
