"""How fast this process lets each origin send, for all its reads together: the operator's limit (`origin_rate`).

It knows bytes and names of upstreams alone. Manifests and questions are small, and do not come by here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from peer.transport.rates import RateLimiter

if TYPE_CHECKING:
    from peer.registry.range_reader import Sink
    from peer.store.base import Chunk


class OriginLimits:
    """Safe to call from any thread. A rate of 0 means no limit."""

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self._lock = threading.Lock()
        self._rate_bytes_s = rate_bytes_s
        # One an upstream: the allow-list limits how many there are.
        self._limiters: dict[str, RateLimiter] = {}

    def set_rate(self, rate_bytes_s: int) -> None:
        """Who waits goes on at the new rate."""
        with self._lock:
            self._rate_bytes_s = rate_bytes_s
            for limiter in self._limiters.values():
                limiter.set_rate(rate_bytes_s)

    def received(self, upstream: str, size_bytes: int) -> None:
        """So much came from there: wait until more may."""
        with self._lock:
            limiter = self._limiters.get(upstream)
            if limiter is None:
                limiter = self._limiters[upstream] = RateLimiter(self._rate_bytes_s)
        limiter.take(size_bytes)

    def paced(self, upstream: str, sink: Sink) -> Sink:
        """The sink, which then waits after each chunk until more may come from there."""

        def paced(offset: int, chunk: Chunk) -> None:
            sink(offset, chunk)
            self.received(upstream, len(chunk))

        return paced
