"""RateLimiter: one token bucket that all transfers of a node share. It knows bytes and time, nothing of sockets."""

from __future__ import annotations

import threading
import time
from typing import Final

# What may pass at once after a pause: enough to keep the link busy between two wake-ups, too little to notice.
_BURST_S: Final = 0.05
_BURST_MIN_BYTES: Final = 16 * 1024
_CHUNK_MAX_BYTES: Final = 256 * 1024


class RateLimiter:
    """Safe to call from any thread. A rate of 0 means no limit."""

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self._changed = threading.Condition()
        self._rate = 0
        self._tokens = 0.0
        self._as_of = time.monotonic()
        self.set_rate(rate_bytes_s)

    @property
    def limited(self) -> bool:
        return self._rate > 0

    @property
    def rate_bytes_s(self) -> int:
        """0 for no limit."""
        return self._rate

    @property
    def chunk_bytes(self) -> int:
        """How many bytes to take at a time, so that several transfers share the rate evenly."""
        return max(_BURST_MIN_BYTES, min(_CHUNK_MAX_BYTES, int(self._rate * _BURST_S)))

    def set_rate(self, rate_bytes_s: int) -> None:
        """Change the limit; who waits goes on at the new rate."""
        if rate_bytes_s < 0:
            raise ValueError(f"rate of {rate_bytes_s} bytes a second")
        with self._changed:
            self._refill()
            self._rate = rate_bytes_s
            self._tokens = min(self._tokens, self._burst())
            self._changed.notify_all()

    def take(self, size_bytes: int) -> None:
        """Wait until there is credit, then take all of `size_bytes` (the next one waits for what is overdrawn)."""
        if not self._rate:
            return
        with self._changed:
            while self._rate:
                self._refill()
                if self._tokens >= 0:
                    self._tokens -= size_bytes
                    return
                self._changed.wait(-self._tokens / self._rate)

    def _burst(self) -> float:
        return max(float(_BURST_MIN_BYTES), self._rate * _BURST_S)

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst(), self._tokens + (now - self._as_of) * self._rate)
        self._as_of = now
