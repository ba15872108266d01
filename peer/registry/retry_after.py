"""The Retry-After header: seconds or a date. Parsing only."""

from __future__ import annotations

import email.utils
import time

# An origin that wants longer is asked again after this all the same: a wrong clock must not silence us for days.
RETRY_AFTER_MAX_S = 3600.0


def retry_after_s(header: str | None, wall_time_s: float | None = None) -> float | None:
    """Seconds to wait, 0 to 3600; None where the header is missing or malformed.

    `wall_time_s` is the Unix time that a date is measured from; the clock's where not given.
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
