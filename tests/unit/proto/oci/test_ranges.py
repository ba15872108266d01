"""Range and Content-Range: what is sent of a blob, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.oci.ranges import (
    RANGES_MAX,
    ByteRange,
    ContentRange,
    Part,
    TooManyRanges,
    format_range,
    parse_content_range,
    parse_ranges,
    parts_read,
    select,
)

SIZES = st.integers(0, 1 << 40)


@given(SIZES, st.integers(0, 1 << 41), st.integers(0, 1 << 41))
def test_a_closed_range_gives_the_bytes_python_would(size: int, first: int, last: int) -> None:
    asked = parse_ranges(f"bytes={first}-{last}")
    if last < first:
        assert asked == ()
        return
    expected = range(size)[first : last + 1]
    assert asked[0].resolve(size) == ((expected.start, expected.stop) if expected else None)


@given(SIZES, st.integers(0, 1 << 41))
def test_a_suffix_gives_the_last_bytes(size: int, count: int) -> None:
    (asked,) = parse_ranges(f"bytes=-{count}")
    resolved = asked.resolve(size)
    length = min(size, count)
    assert resolved == ((size - length, size) if length else None)


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 1 << 40))
def test_a_printed_content_range_is_read_back(start: int, length: int, after: int) -> None:
    end = start + length
    header = Part(206, start, end, end + after).content_range
    assert parse_content_range(header) == ContentRange(start, end, end + after)


@given(st.integers(0, 1 << 40), st.one_of(st.none(), st.integers(1, 1 << 20)))
def test_a_printed_range_is_read_back(start: int, length: int | None) -> None:
    end = None if length is None else start + length
    assert parse_ranges(format_range(start, end)) == (ByteRange(start, None if end is None else end - 1),)


@given(st.text(max_size=40))
def test_any_text_is_answered(header: str) -> None:
    assert select(header, 100)[0].status in (200, 206, 416)
    parse_content_range(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "items=0-1", "bytes=0-1,5-2", "bytes=,",
     "bytes=0-1;3-4", "bytes=--1", "bytes=0-" + "9" * 20, "bytes=\u0661-2"],
)  # fmt: skip
def test_what_is_no_byte_range_is_ignored(header: str | None) -> None:
    (chosen,) = select(header, 100)
    assert (chosen.status, chosen.start, chosen.end) == (200, 0, 100)


@pytest.mark.parametrize(
    ("header", "status", "content_range"),
    [
        ("bytes=0-0", 206, "bytes 0-0/100"),
        ("bytes=90-", 206, "bytes 90-99/100"),
        ("BYTES = 90-1000", 206, "bytes 90-99/100"),
        ("bytes=-5", 206, "bytes 95-99/100"),
        ("bytes=-1000", 206, "bytes 0-99/100"),
        ("bytes=100-", 416, "bytes */100"),
        ("bytes=-0", 416, "bytes */100"),
        ("bytes=0-1, ,", 206, "bytes 0-1/100"),
        ("bytes=100-,200-300", 416, "bytes */100"),
        ("bytes=5-6,100-", 206, "bytes 5-6/100"),
    ],
)
def test_one_range_is_answered_by_its_part(header: str, status: int, content_range: str) -> None:
    (chosen,) = select(header, 100)
    assert (chosen.status, chosen.content_range) == (status, content_range)


BOUNDS = st.tuples(st.integers(0, 150), st.integers(0, 150)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(BOUNDS, min_size=2, max_size=20))
def test_several_ranges_are_answered_as_they_were_asked_or_all_is_sent(asked: list[tuple[int, int]]) -> None:
    parts = select("bytes=" + ", ".join(f"{first}-{last}" for first, last in asked), 100)
    expected = [range(100)[first : last + 1] for first, last in asked if first < 100]
    if not expected:
        assert [part.status for part in parts] == [416]
    elif len(expected) > 1 and sum(map(len, expected)) > 100:
        assert parts == (Part(200, 0, 100, 100),)
    else:
        assert [range(part.start, part.end or 0) for part in parts] == expected
        assert {part.status for part in parts} == {206}


@pytest.mark.parametrize("header", [None, "bytes=0-", "bytes=5-", "bytes=0-5,9-", "bytes=5-4", "lines=1-2"])
def test_who_asks_for_all_from_some_byte_on_reads_no_parts(header: str | None) -> None:
    assert parts_read(header) == ()


def test_parts_are_closed_ranges_and_the_end() -> None:
    assert parts_read("bytes=0-5, -9") == (ByteRange(0, 5), ByteRange(None, None, suffix=9))


def test_more_ranges_than_are_answered_are_refused() -> None:
    header = "bytes=" + ",".join(["0-0"] * RANGES_MAX)
    assert len(select(header, RANGES_MAX)) == RANGES_MAX
    with pytest.raises(TooManyRanges, match="1025 ranges in one request: ask for 1024 at most"):
        select(header + ",0-0", RANGES_MAX)


def test_an_empty_blob_is_sent_whole() -> None:
    (chosen,) = select("bytes=0-", 0)
    assert (chosen.status, chosen.end, chosen.content_range) == (200, 0, None)


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes 5-2/10", "bytes 0-10/10", "bytes */*", "bytes 0-1", "0-1/2"]
)
def test_a_content_range_that_contradicts_itself_is_none(header: str | None) -> None:
    assert parse_content_range(header) is None


def test_a_content_range_of_unknown_size_or_of_a_416_is_read() -> None:
    assert parse_content_range("bytes 0-9/*") == ContentRange(0, 10, None)
    assert parse_content_range("bytes */100") == ContentRange(None, None, 100)
