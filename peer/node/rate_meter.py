"""How fast bytes went by lately: differences of a growing total, smoothed over some seconds. Arithmetic only."""

from __future__ import annotations

import math

SMOOTHING_S = 3.0


class RateMeter:
    """Feed it (total, now) now and then; `bytes_s` fades with SMOOTHING_S."""

    def __init__(self) -> None:
        self.bytes_s = 0.0
        self._last: tuple[float, float] | None = None

    def sample(self, total_bytes: float, now: float) -> float:
        """Take a reading; returns the smoothed rate in bytes a second."""
        if self._last is not None and now > self._last[1]:
            elapsed_s = now - self._last[1]
            rate = (total_bytes - self._last[0]) / elapsed_s
            weight = 1.0 - math.exp(-elapsed_s / SMOOTHING_S)
            self.bytes_s += weight * (rate - self.bytes_s)
        self._last = (total_bytes, now)
        return self.bytes_s
