"""When a failing origin is asked again, and when it is given up. Pure: the caller tells the time, and waits.

One policy for every reader: the supernode's fetch, a node's own fetch, a body that passes through to a client, and the
simulator.
"""

from __future__ import annotations

import email.utils
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import UpstreamKind
from proto.pieces import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

# A retry may help after these. After the others the answer would be the same.
RETRIED: Final = frozenset({UpstreamKind.UNAVAILABLE, UpstreamKind.RATE_LIMITED})
# The longest Retry-After that is believed: a wrong clock must not stop us for days.
RETRY_AFTER_MAX_S: Final = 3600.0
_RESET: Final = re.compile(r"(?:^|[;,\s])(?:t|reset)=(\d+)")


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """`retry_after_max_s`: an origin that asks for a longer pause is given up, so that another node may try."""

    first_delay_s: float = 0.25
    delay_max_s: float = 5.0
    # Given up after this many failures and this much time without progress. Both are needed: a refused connection
    # fails at once, a silent one only after 10 s.
    failures_min: int = 3
    without_progress_s: float = 5.0
    # And after one attempt, if it took so long: an origin that stayed silent for minutes is not asked thrice.
    patience_s: float = 60.0
    # Fewer bytes than this are no progress.
    progress_bytes: int = 64 * KIB
    retry_after_max_s: float = 20.0


# For a node's own fetches. If the origin asks for a longer pause, the client gets its answer.
NODE_RETRY: Final = RetrySettings(retry_after_max_s=10.0)


class Retry:
    """The failures of one fetch. `now` is monotonic seconds; `jitter` gives 0 <= x < 1. Not safe for threads."""

    def __init__(self, settings: RetrySettings, jitter: Callable[[], float], now: float) -> None:
        self._settings = settings
        self._jitter = jitter
        self._failures = 0
        self._received_bytes = 0
        self._progress_s = now

    def received(self, count: int, now: float) -> None:
        """Useful bytes arrived. A trickle of them is no progress."""
        self._received_bytes += count
        if self._received_bytes >= self._settings.progress_bytes:
            self._received_bytes = self._failures = 0
            self._progress_s = now

    def begin_anew(self, now: float) -> None:
        """What failed was no doing of the origin's."""
        self._received_bytes = self._failures = 0
        self._progress_s = now

    def delay_s(self, now: float, retry_after_s: float | None = None) -> float | None:
        """An attempt failed: seconds until the next one, at least Retry-After; None to give up."""
        settings = self._settings
        self._failures += 1
        if (retry_after_s or 0.0) > settings.retry_after_max_s:
            return None
        without_s = now - self._progress_s
        if without_s >= settings.patience_s or (
            self._failures >= settings.failures_min and without_s >= settings.without_progress_s
        ):
            return None
        delay_s = min(settings.delay_max_s, settings.first_delay_s * 2.0 ** (self._failures - 1))
        return max(delay_s * (0.5 + self._jitter() / 2), retry_after_s or 0.0)


def retry_after_s(header: str | None, wall_time_s: float | None = None) -> float | None:
    """The seconds that a Retry-After header (seconds or a date) asks for, 0 to 3600; None if missing or malformed.

    `wall_time_s` is the Unix time that a date is compared with; the current time if not given.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        when_s = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    now_s = time.time() if wall_time_s is None else wall_time_s
    return min(max(0.0, when_s - now_s), RETRY_AFTER_MAX_S)


def asked_pause_s(header: Callable[[str], str | None]) -> float | None:
    """The seconds for which an answer that limits its caller asks to be left alone; `header` gives its lines by name.

    Retry-After if there is one, else when the quota begins anew: `RateLimit-Reset` in seconds, or the `t` (earlier
    `reset`) of `RateLimit`, as the drafts of draft-ietf-httpapi-ratelimit-headers have them.
    """
    asked_s = retry_after_s(header("Retry-After"))
    if asked_s is not None:
        return asked_s
    match = _RESET.search(header("RateLimit") or "")
    return retry_after_s(match[1] if match is not None else _seconds(header("RateLimit-Reset")))


def _seconds(text: str | None) -> str | None:
    """Some say in this line when it is, in Unix seconds: those are no pause."""
    match = re.match(r"\s*(\d{1,9})(?!\d)", text or "")
    return match[1] if match is not None else None
