"""Obeys Retry-After for all who share a limiter: after one request was limited, none is sent before that time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from peer.transport.cancellation import Cancellation


class RequestLimiter:
    """Safe to use from many threads. Not to be confused with peer.transport.rates.RateLimiter, which limits bytes."""

    def __init__(self, patience_s: float) -> None:
        """A wait of more than `patience_s` is an error at once, so that another node may try."""
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._closed_until_s: dict[str, float] = {}

    def heed(self, host: str, error: UpstreamError) -> None:
        """A request to this upstream failed. If it asked for a pause, nothing is sent to it during that time."""
        if error.retry_after_s is None:
            return
        until_s = time.monotonic() + error.retry_after_s
        with self._lock:
            self._closed_until_s[host] = max(until_s, self._closed_until_s.get(host, 0.0))

    def wait(self, host: str, cancel: Cancellation) -> None:
        """Return when a request may be sent. Raises UpstreamError (rate_limited) and FetchCancelled."""
        while (left_s := self._left_s(host)) > 0:
            if left_s > self._patience_s:
                raise UpstreamError(
                    f"origin {host} asked for no requests for another {left_s:.0f} s",
                    UpstreamKind.RATE_LIMITED,
                    retry_after_s=left_s,
                )
            cancel.pause(left_s)

    def _left_s(self, host: str) -> float:
        with self._lock:
            return self._closed_until_s.get(host, 0.0) - time.monotonic()
