"""What happened to the blobs of a store since it was opened; safe to read and to add to from any thread."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

# How rotten pieces are found: read for a client or for another peer, by the scrub, with the digest of the whole,
# because another peer complained, by the operator's command.
FOUND_BY: Final = ("client", "peer", "scrub", "digest", "complaint", "operator")
# Why a store takes no more: its size limit, the disk's floor, a disk that is full.
FULL: Final = ("limit", "floor", "disk")


class StoreCounters:
    """Counts only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Pieces that had to be dropped, by FOUND_BY.
        self.rotten: Counter[str] = Counter()
        # Blobs and pieces that found no room, by FULL.
        self.full: Counter[str] = Counter()
        self.scrubbed_bytes = 0

    def add_rotten(self, found_by: str, pieces: int) -> None:
        """So many pieces were dropped."""
        with self._lock:
            self.rotten[found_by] += pieces

    def add_full(self, reason: str) -> None:
        """Something found no room."""
        with self._lock:
            self.full[reason] += 1

    def add_scrubbed(self, size_bytes: int) -> None:
        """The scrub read so much."""
        with self._lock:
            self.scrubbed_bytes += size_bytes
