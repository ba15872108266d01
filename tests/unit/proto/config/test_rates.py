"""Rate: one limit, or others at hours of each day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.config.rates import WINDOWS_MAX, Rate, Window, at_least, parse_daily_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "minute", "bytes_s"),
    [
        ("50MiB", 0, 50 * MIB),
        ("0", 0, 0),
        ("50MiB, 22:00-06:00 = 500MiB", 22 * 60 - 1, 50 * MIB),
        ("50MiB, 22:00-06:00 = 500MiB", 22 * 60, 500 * MIB),
        ("50MiB, 22:00-06:00 = 500MiB", 6 * 60 - 1, 500 * MIB),
        ("50MiB, 22:00-06:00 = 500MiB", 6 * 60, 50 * MIB),
        ("08:00-18:00=10MiB/s", 8 * 60, 10 * MIB),
        ("08:00-18:00=10MiB/s", 18 * 60, 0),
        ("1MiB,20:00-24:00=2MiB,00:00-4:30=3MiB", 24 * 60 - 1, 2 * MIB),
        ("1MiB,20:00-24:00=2MiB,00:00-4:30=3MiB", 4 * 60 + 29, 3 * MIB),
    ],
)
def test_the_window_counts_that_the_minute_lies_in(text: str, minute: int, bytes_s: int) -> None:
    assert parse_daily_rate(text).at(minute) == bytes_s


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "50MiB,", "50MiB 22:00-06:00=1MiB", "22:00-06:00", "22:00-06:00=", "22-06=1MiB", "25:00-06:00=1MiB",
        "22:60-06:00=1MiB", "24:00-06:00=1MiB", "06:00-06:00=1MiB", "00:00-24:00=1MiB", "22:00-06:00=fast",
        "1MiB, 22:00-06:00=2MiB, 05:59-07:00=3MiB",
        ", ".join(["1MiB", *(f"{at // 60:02d}:{at % 60:02d}-{at // 60:02d}:{at % 60 + 1:02d}=1MiB"
                            for at in range(0, 2 * WINDOWS_MAX + 2, 2))]),
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_daily_rate(text)


def test_a_limit_that_is_too_low_is_refused_in_a_window_too() -> None:
    parse = at_least(1000, "at least 1000")
    assert parse("0, 22:00-06:00 = 1000") == Rate(0, (Window(22 * 60, 6 * 60, 1000),))
    for text in ("999", "0, 22:00-06:00 = 999"):
        with pytest.raises(ValueError, match="expected at least 1000"):
            parse(text)


def test_now_is_by_the_machines_own_time_zone(in_tokyo: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # 13:30 UTC.
    monkeypatch.setattr(time, "localtime", lambda real=time.localtime: real(13.5 * 3600))
    assert parse_daily_rate("1, 22:30-22:31 = 2").now() == 2


def test_a_rate_that_changes_in_the_day_promises_nobody_anything() -> None:
    assert parse_daily_rate("5").told_bytes_s == 5
    assert parse_daily_rate("5, 22:00-06:00 = 50").told_bytes_s == 0


@given(st.integers(0, 10**12), st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 10**12))
def test_what_is_printed_is_read_again(always: int, begin: int, end: int, bytes_s: int) -> None:
    if begin != end:
        rate = Rate(always, (Window(begin, end, bytes_s),))
        assert parse_daily_rate(str(rate)) == rate
