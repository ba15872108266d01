"""Log lines of both services: one line an event, `event key=value ...`, as text or JSON. It never sees a credential.

Callers log `logging.getLogger(__name__).info("blob_complete digest=%s bytes=%d", digest.short, size)`; nothing
that came from an Authorization header, a token answer or the query of a URL is ever an argument.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# The secret of a join token, and user and password of a URL: where an operator put one in a wrong place.
_SECRETS: Final = re.compile(r"(?<=\blc1\.[a-z2-7]{8}\.)[\w-]{16,}(\.[\w-]*)?|(?<=://)[^/\s'\"]+(?=@)", re.ASCII)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{when} {record.levelname.lower():7} {record.name} {_one_line(record.getMessage())}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return without_secrets(line)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(fields, ensure_ascii=False))


def without_secrets(text: str) -> str:
    """What may be shown of a text that repeats what an operator wrote."""
    return _SECRETS.sub("...", text) if "lc1." in text or "@" in text else text


def _one_line(text: str) -> str:
    """What a remote said must not begin a line of its own in our log."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


class LogLimit:
    """Lines that a remote can cause as often as it likes: so many a period, the rest counted. Safe from any thread."""

    def __init__(
        self, lines_max: int = 60, period_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines_max = lines_max
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._since_s = clock()
        self._lines = 0
        self._left_out = 0

    def log(self, logger: logging.Logger, level: int, text: str, *values: object) -> None:
        """Log this line, or only count it; the first line of a period tells how many the last one left out."""
        left_out = 0
        with self._lock:
            now_s = self._clock()
            if now_s - self._since_s >= self._period_s:
                left_out, self._left_out = self._left_out, 0
                self._since_s, self._lines = now_s, 0
            self._lines += 1
            if self._lines > self._lines_max:
                self._left_out += 1
                return
        if left_out:
            logger.log(level, "lines_left_out count=%d kind=%s", left_out, text.partition(" ")[0])
        logger.log(level, text, *values)


def setup(level: str = "info", *, as_json: bool = False) -> None:
    """Send all loggers to standard error; called again after a reload."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiohttp's access log repeats every client request at info; ours says more, once.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
