"""Arrivals: the pace at which pieces come from the origin, so that the seed is free when the next one is ready."""

from __future__ import annotations


class Arrivals:
    """When the next piece from the origin may be expected at the seed."""

    __slots__ = ("gap_s", "last_at", "woken_for")

    def __init__(self) -> None:
        self.last_at: float | None = None
        self.gap_s: float | None = None
        # The time a timer was last set for, so that one hold sets one timer.
        self.woken_for = -1.0

    def arrived(self, now: float) -> None:
        """A piece came."""
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
