"""The pace at which pieces come from the origin, so that the seed is free when the next one is ready."""

from __future__ import annotations


class OriginPace:
    """When the next piece from the origin may be expected at the seed."""

    __slots__ = ("_asked_at", "_bytes", "gap_s", "last_at", "woken_for")

    def __init__(self) -> None:
        self.last_at: float | None = None
        self.gap_s: float | None = None
        # When the origin was asked with no other fetch in flight, and what came since.
        self._asked_at: float | None = None
        self._bytes = 0
        # The time a timer was last set for, so that one hold sets one timer.
        self.woken_for = -1.0

    def asked(self, now: float, *, alone: bool) -> None:
        """A fetch begins; `alone` if no other is in flight, so that time without any does not count."""
        if alone:
            self._asked_at = now
            self._bytes = 0
        self.pause()

    def rate(self, now: float) -> float:
        """Bytes/s at which pieces came since the origin was asked, waiting included; 0.0 before any time passed."""
        if self._asked_at is None or now <= self._asked_at:
            return 0.0
        return self._bytes / (now - self._asked_at)

    def arrived(self, now: float, size_bytes: int) -> None:
        """A piece came."""
        self._bytes += size_bytes
        if self.last_at is not None:
            gap = now - self.last_at
            self.gap_s = gap if self.gap_s is None else self.gap_s + 0.25 * (gap - self.gap_s)
        self.last_at = now

    def pause(self) -> None:
        """A fetch ended or another begins: the time until its first piece says nothing about the gaps."""
        self.last_at = None

    def next_at(self) -> float | None:
        """Predicted time of the next piece."""
        return None if self.last_at is None or self.gap_s is None else self.last_at + self.gap_s
