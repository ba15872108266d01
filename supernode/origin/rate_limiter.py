"""Retry-After, obeyed for all blobs of an upstream: once one request was limited, none is sent before its time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.transport.cancellation import Cancellation


class RateGate:
    """Safe to use from many threads."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A wait of more than `patience_s` is refused, so that somebody else may try."""
        self.patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._closed_until_s: dict[str, float] = {}

    def close(self, host: str, seconds: float) -> None:
        """Send nothing to this upstream for so long."""
        until_s = self._clock() + seconds
        with self._lock:
            self._closed_until_s[host] = max(until_s, self._closed_until_s.get(host, 0.0))

    def wait(self, host: str, cancel: Cancellation) -> None:
        """Return when a request may be sent. Raises UpstreamError (rate_limited) and FetchCancelled."""
        while (left_s := self._left_s(host)) > 0:
            if left_s > self.patience_s:
                raise UpstreamError(
                    f"origin {host} asked for no requests for another {left_s:.0f} s",
                    UpstreamKind.RATE_LIMITED,
                    retry_after_s=left_s,
                )
            cancel.pause(left_s)

    def _left_s(self, host: str) -> float:
        with self._lock:
            return self._closed_until_s.get(host, 0.0) - self._clock()
