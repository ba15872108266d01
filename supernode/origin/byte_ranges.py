"""Which bytes the next request to an origin asks for, and how many requests run in parallel. Pure.

A byte that was asked for leaves the book, and returns only if the response ended without it. So no two requests
overlap, except for bytes that were lost with a connection.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.pieces import MIB, PIECE_SIZE_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """Sizes of requests, in bytes, and when another stream is tried.

    A request ends at a multiple of `align_bytes`, which every piece size divides: two streams never share a piece.
    """

    # Large enough that one round trip more per window does not count. Small enough that an origin without ranges is
    # noticed, and that other streams can start, before much was read.
    first_bytes: int = 32 * MIB
    # A stream on trial gets little, because what it got cannot be taken back.
    trial_bytes: int = 16 * MIB
    # Later windows are a share of what is left, at most this: a signed URL lives minutes.
    later_bytes_max: int = 256 * MIB
    align_bytes: int = PIECE_SIZE_MAX_BYTES
    streams_max: int = 4
    # One measurement of the rate: at least this much, over at least this time.
    measure_bytes: int = 4 * MIB
    measure_s: float = 0.25
    # A further stream is kept if the total rate grew by this factor.
    gain_min: float = 1.15


class RangeBook:
    """The bytes still to be asked for, as half-open ranges in order."""

    def __init__(self, missing: Iterable[tuple[int, int]], align_bytes: int) -> None:
        """`missing` must not overlap."""
        self._align_bytes = align_bytes
        self._ranges = sorted((start, end) for start, end in missing if start < end)

    @property
    def pending_bytes(self) -> int:
        """Bytes that were not asked for yet."""
        return sum(end - start for start, end in self._ranges)

    def take(self, at_most_bytes: int) -> tuple[int, int] | None:
        """The lowest bytes of one gap, about `at_most_bytes` of them; None if nothing is left."""
        if not self._ranges:
            return None
        start, gap_end = self._ranges.pop(0)
        end = start + at_most_bytes
        aligned = end - end % self._align_bytes
        # A start between two multiples with too little room for either is asked up to the next multiple.
        end = min(gap_end, aligned if aligned > start else aligned + self._align_bytes)
        if end < gap_end:
            self._ranges.insert(0, (end, gap_end))
        return start, end

    def take_all(self) -> list[tuple[int, int]]:
        """All that is left, lowest first."""
        taken, self._ranges = self._ranges, []
        return taken

    def give_back(self, start: int, end: int) -> None:
        """These bytes were taken and did not arrive."""
        if start < end:
            insort(self._ranges, (start, end))


class Ramp:
    """How many streams to run: one more, as long as the last one made the total rate grow.

    `now` is monotonic seconds. Not safe for threads.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self.target = 1
        self._settings = settings
        self._settled = settings.streams_max <= 1
        # A further stream was started and has no bytes yet: nothing is measured until it has.
        self._joining = False
        self._rate_before = 0.0
        self._since_s: float | None = None
        self._bytes = 0

    def joined(self, now: float) -> None:
        """The stream on trial has its first bytes. Its effect is measured from now on."""
        self._joining = False
        self._since_s = now
        self._bytes = 0

    def delivered(self, count: int, now: float) -> None:
        """`count` bytes arrived, over all streams."""
        if self._settled or self._joining:
            return
        if self._since_s is None:
            self._since_s = now
            return  # these came in an unknown time
        self._bytes += count
        elapsed_s = now - self._since_s
        if self._bytes < self._settings.measure_bytes or elapsed_s < self._settings.measure_s:
            return
        rate = self._bytes / elapsed_s
        if self.target > 1 and rate < self._rate_before * self._settings.gain_min:
            self.settle(self.target - 1)
        elif self.target >= self._settings.streams_max:
            self.settle(self.target)
        else:
            self._rate_before = rate
            self.target += 1
            self._joining = True

    def settle(self, target: int) -> None:
        """Start no further streams: they do not help, or the origin does not accept them."""
        self._settled = True
        self.target = max(1, min(self.target, target))

    def window_bytes(self, pending_bytes: int, *, first: bool, trial: bool) -> int:
        """How much the next request should ask for."""
        if first:
            return self._settings.first_bytes
        if trial:
            return self._settings.trial_bytes
        alone = self._settled and self.target == 1
        share = pending_bytes if alone else pending_bytes // (2 * self.target)
        return max(self._settings.first_bytes, min(share, self._settings.later_bytes_max))
