"""Range and Content-Range: what is sent of a blob, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.oci.ranges import (
    ByteRange,
    ContentRange,
    Part,
    format_range,
    parse_content_range,
    parse_range,
    select,
)

SIZES = st.integers(0, 1 << 40)


@given(SIZES, st.integers(0, 1 << 41), st.integers(0, 1 << 41))
def test_a_closed_range_gives_the_bytes_python_would(size: int, first: int, last: int) -> None:
    asked = parse_range(f"bytes={first}-{last}")
    if last < first:
        assert asked is None
        return
    assert asked is not None
    expected = range(size)[first : last + 1]
    assert asked.resolve(size) == ((expected.start, expected.stop) if expected else None)


@given(SIZES, st.integers(0, 1 << 41))
def test_a_suffix_gives_the_last_bytes(size: int, count: int) -> None:
    asked = parse_range(f"bytes=-{count}")
    assert asked is not None
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
    assert parse_range(format_range(start, end)) == ByteRange(start, None if end is None else end - 1)


@given(st.text(max_size=40))
def test_any_text_is_answered(header: str) -> None:
    assert select(header, 100).status in (200, 206, 416)
    parse_content_range(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "items=0-1", "bytes=0-1,3-4", "bytes=0-1,",
     "bytes=--1", "bytes=0-" + "9" * 20, "bytes=\u0661-2"],
)  # fmt: skip
def test_what_is_not_one_byte_range_is_ignored(header: str | None) -> None:
    chosen = select(header, 100)
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
    ],
)
def test_one_range_is_answered_by_its_part(header: str, status: int, content_range: str) -> None:
    chosen = select(header, 100)
    assert (chosen.status, chosen.content_range) == (status, content_range)


def test_an_empty_blob_is_sent_whole() -> None:
    chosen = select("bytes=0-", 0)
    assert (chosen.status, chosen.end, chosen.content_range) == (200, 0, None)


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes 5-2/10", "bytes 0-10/10", "bytes */*", "bytes 0-1", "0-1/2"]
)
def test_a_content_range_that_contradicts_itself_is_none(header: str | None) -> None:
    assert parse_content_range(header) is None


def test_a_content_range_of_unknown_size_or_of_a_416_is_read() -> None:
    assert parse_content_range("bytes 0-9/*") == ContentRange(0, 10, None)
    assert parse_content_range("bytes */100") == ContentRange(None, None, 100)
