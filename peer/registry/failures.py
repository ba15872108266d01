"""What upstreams answered with no success, counted by kind, and the last such answer. It decides nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from proto.bounded_dict import BoundedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.errors import UpstreamError

# Of the allow-list; without one there may be any number.
UPSTREAMS_MAX: Final = 1000
_TEXT_MAX: Final = 300


class Failures:
    """Since the start. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: BoundedDict[str, Counter[str]] = BoundedDict(UPSTREAMS_MAX)
        self._last: BoundedDict[str, tuple[float, str]] = BoundedDict(UPSTREAMS_MAX)

    def count(self, upstream: str, error: UpstreamError) -> None:
        """A request failed, or was refused."""
        with self._lock:
            counts = self._counts.get(upstream, Counter())
            counts[error.kind.value] += 1
            self._counts[upstream] = counts
            self._last[upstream] = (self._clock(), str(error)[:_TEXT_MAX])

    def rows(self) -> dict[str, dict[str, Any]]:
        """By upstream: how many of each kind, the last one's words, and how long ago that was."""
        now_s = self._clock()
        with self._lock:
            return {
                upstream: {
                    "failures": dict(counts),
                    "last_failure": self._last[upstream][1],
                    "last_failure_ago_s": round(now_s - self._last[upstream][0], 1),
                }
                for upstream, counts in self._counts.items()
            }
