"""When each piece of one blob was last found right, so that a disk that rots is found out. Reads nothing itself."""

from __future__ import annotations

import threading
from array import array
from typing import Final

from proto.pieces import indices

# Not since this process began.
_NEVER: Final = float("-inf")


class PieceChecks:
    """Times are the store's clock. Safe to use from any thread."""

    def __init__(self, count: int) -> None:
        self._count = count
        # A node keeps thousands of blobs that nobody reads: they cost nothing here.
        self._times: array[float] | None = None
        self._lock = threading.Lock()
        # How often everything was forgotten.
        self.forgotten = 0

    def passed(self, piece: int, at_s: float, forgotten: int) -> None:
        """The piece was right then, and `forgotten` so much before it was read: it counts unless more is by now."""
        with self._lock:
            if forgotten != self.forgotten:
                return
            if self._times is None:
                self._times = array("d", [_NEVER]) * self._count
            self._times[piece] = at_s

    def passed_all(self, at_s: float) -> None:
        """Every piece was."""
        self._times = array("d", [at_s]) * self._count

    def forget(self) -> None:
        """Nothing is known of any piece."""
        with self._lock:
            self._times = None
            self.forgotten += 1

    def older(self, pieces: int, mark_s: float) -> int:
        """Those of the pieces (mask) that were not checked since then."""
        times = self._times
        if times is None:
            return pieces
        if pieces.bit_count() > 1 and min(times) >= mark_s:
            return 0
        for piece in indices(pieces):
            if times[piece] >= mark_s:
                pieces &= ~(1 << piece)
        return pieces

    def run_end(self, first: int, mark_s: float) -> int:
        """The first piece from `first` on that was not checked since then."""
        times, piece = self._times, first
        if times is None:
            return first
        while piece < self._count and times[piece] >= mark_s:
            piece += 1
        return piece
