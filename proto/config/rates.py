"""Rate: a limit of bytes a second that may be another one at some hours of each day. It knows clock times alone."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

from proto.config.values import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPECTED: Final = (
    "expected a rate such as 100Mbit or 0 for no limit, and after it windows such as 22:00-06:00 = 500MiB"
)
_WINDOW: Final = re.compile(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*=(.*)")
_DAY_MINUTES: Final = 24 * 60
# One an hour.
WINDOWS_MAX: Final = 24


@dataclass(frozen=True, slots=True)
class Window:
    """From a minute of the day up to another, which is on the next day where it is not later. 0: no limit."""

    begin_minute: int
    end_minute: int
    bytes_s: int

    def covers(self, minute: int) -> bool:
        """Whether it counts at this minute of a day."""
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute

    def __str__(self) -> str:
        return f"{_clock(self.begin_minute)}-{_clock(self.end_minute)} = {self.bytes_s}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second, 0 for no limit. `always_bytes_s` counts outside the windows, of which no two overlap."""

    always_bytes_s: int = 0
    windows: tuple[Window, ...] = ()

    def at(self, minute: int) -> int:
        """What counts at this minute of a day."""
        return next((each.bytes_s for each in self.windows if each.covers(minute)), self.always_bytes_s)

    def now(self) -> int:
        """What counts now, by this machine's clock and time zone."""
        local = time.localtime()
        return self.at(60 * local.tm_hour + local.tm_min)

    @property
    def told_bytes_s(self) -> int:
        """What others may plan with for as long as this process runs: nothing (0) where it changes in the day."""
        return 0 if self.windows else self.always_bytes_s

    def __str__(self) -> str:
        return ", ".join([str(self.always_bytes_s), *map(str, self.windows)])


def parse_daily_rate(text: str) -> Rate:
    """`50MiB, 22:00-06:00 = 500MiB`: a rate, windows, or both; without a rate there is no limit outside the windows.

    Raises ValueError that says what would be right.
    """
    first, *rest = text.split(",")
    if "=" in first:
        always, rest = 0, [first, *rest]
    else:
        always = parse_rate(first)
    if len(rest) > WINDOWS_MAX:
        raise ValueError(f"expected at most {WINDOWS_MAX} windows")
    windows = tuple(_window(each.strip()) for each in rest)
    for one, other in combinations(windows, 2):
        if one.covers(other.begin_minute) or other.covers(one.begin_minute):
            raise ValueError(f"expected windows that do not overlap; {one} and {other} do")
    return Rate(always, windows)


def at_least(least_bytes_s: int, expected: str) -> Callable[[str], Rate]:
    """Reads what parse_daily_rate does, if no limit in it is below this one; `expected` says what would be right."""

    def parse(text: str) -> Rate:
        rate = parse_daily_rate(text)
        if any(0 < bytes_s < least_bytes_s for bytes_s in (rate.always_bytes_s, *(w.bytes_s for w in rate.windows))):
            raise ValueError(f"expected {expected}")
        return rate

    return parse


def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise ValueError(_EXPECTED)
    begin, end = _minute(match[1], match[2]), _minute(match[3], match[4])
    if begin == _DAY_MINUTES or begin == end % _DAY_MINUTES:
        raise ValueError("expected a window that begins at 23:59 at the latest and ends at another time")
    return Window(begin, end % _DAY_MINUTES, parse_rate(match[5]))


def _minute(hour: str, minute: str) -> int:
    found = 60 * int(hour) + int(minute)
    if int(minute) > 59 or found > _DAY_MINUTES:
        raise ValueError("expected times from 00:00 to 24:00")
    return found


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
