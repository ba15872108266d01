"""Range and Content-Range: byte ranges of a blob, as RFC 9110 section 14 writes them. Pure text and arithmetic.

A header that we do not understand is ignored: the answer is the whole blob with 200, which every client accepts. All
ends are exclusive here and inclusive on the wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proto.errors import RemoteError

# More digits than any blob's size has (2**63 is 19); int() of a longer string would be work for nothing.
_NUMBER = r"[0-9]{1,19}"
_UNIT = re.compile(r"\s*bytes\s*=(.*)", re.IGNORECASE)
_RANGE = re.compile(rf"\s*({_NUMBER})?-({_NUMBER})?\s*")
_CONTENT_RANGE = re.compile(rf"\s*bytes\s+(?:({_NUMBER})-({_NUMBER})|\*)/({_NUMBER}|\*)\s*", re.IGNORECASE)

# Ranges in one request. containers/image asks for up to 1,024 chunks at once, and for fewer where that is refused.
RANGES_MAX: Final = 1024


class TooManyRanges(RemoteError):
    """More ranges in one request than are answered. Clients of many ranges ask for fewer where they get 400."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """What a client asked for: from `first` to `last` inclusive (None: to the end), or the last `suffix` bytes."""

    first: int | None
    last: int | None
    suffix: int | None = None

    def resolve(self, size_bytes: int) -> tuple[int, int] | None:
        """(start, end) within a blob of this size, end exclusive; None where nothing of it exists (416)."""
        if self.suffix is not None:
            start = max(0, size_bytes - self.suffix)
            return (start, size_bytes) if start < size_bytes else None
        start = self.first or 0
        end = size_bytes if self.last is None else min(self.last + 1, size_bytes)
        return (start, end) if start < end else None


def parse_ranges(header: str | None) -> tuple[ByteRange, ...]:
    """Read a Range header; nothing means that it is to be ignored. Raises TooManyRanges."""
    match = _UNIT.fullmatch(header) if header is not None else None
    if match is None:
        return ()
    # Recipients must put up with empty elements of a list (RFC 9110 section 5.6.1).
    elements = [element for element in match[1].split(",") if element.strip()]
    if len(elements) > RANGES_MAX:
        raise TooManyRanges(f"{len(elements)} ranges in one request: ask for {RANGES_MAX} at most")
    asked = [_parse_one(element) for element in elements]
    known = tuple(one for one in asked if one is not None)
    return known if len(known) == len(asked) else ()


def _parse_one(element: str) -> ByteRange | None:
    match = _RANGE.fullmatch(element)
    if match is None:
        return None
    first, last = (int(group) if group is not None else None for group in match.groups())
    if first is None:
        return ByteRange(None, None, suffix=last) if last is not None else None
    if last is not None and last < first:
        return None
    return ByteRange(first, last)


def bounds_of(asked: tuple[ByteRange, ...], size_bytes: int) -> tuple[tuple[int, int], ...] | None:
    """Where in a blob of this size these ranges are: (start, end) each, without those of which it has no byte.

    None: all of the blob is the answer, because nothing was asked, or more would be sent than the blob has.
    """
    bounds = tuple(each for one in asked if (each := one.resolve(size_bytes)) is not None)
    more_than_all = len(bounds) > 1 and sum(end - start for start, end in bounds) > size_bytes
    return None if not asked or more_than_all else bounds


def parts_read(header: str | None) -> tuple[ByteRange, ...]:
    """The parts of a blob that a client reads; none for one that downloads it, from some byte on. As parse_ranges."""
    asked = parse_ranges(header)
    return asked if all(one.suffix is not None or one.last is not None for one in asked) else ()


@dataclass(frozen=True, slots=True)
class Part:
    """What of a blob is sent: status 200 or 206 with bytes [start, end), or 416 with none.

    `end` and `size_bytes` are None where an origin told no length.
    """

    status: int
    start: int
    end: int | None
    size_bytes: int | None

    @property
    def whole(self) -> bool:
        """Every byte of the blob is in it."""
        return self.status != 416 and self.start == 0 and self.end == self.size_bytes

    @property
    def content_range(self) -> str | None:
        """The Content-Range header's value; None for a 200, and where there is no end to tell."""
        size = "*" if self.size_bytes is None else str(self.size_bytes)
        if self.status == 416:
            return f"bytes */{size}"
        return None if self.status == 200 or self.end is None else f"bytes {self.start}-{self.end - 1}/{size}"


def select(header: str | None, size_bytes: int) -> tuple[Part, ...]:
    """What a blob of `size_bytes` answers to this Range header: one part, or several of status 206, as they were asked.

    Ranges of which the blob has no byte are left out of several. An empty blob is sent whole: some clients put a Range
    on everything, and no range of nothing could be met. So is one of which more would be sent than it has. Raises
    TooManyRanges.
    """
    bounds = bounds_of(parse_ranges(header), size_bytes)
    if bounds is None or size_bytes == 0:
        return (Part(200, 0, size_bytes, size_bytes),)
    if not bounds:
        return (Part(416, 0, 0, size_bytes),)
    return tuple(Part(206, start, end, size_bytes) for start, end in bounds)


def format_range(start: int, end: int | None) -> str:
    """A Range header for bytes [start, end), or for all from `start`."""
    return f"bytes={start}-{'' if end is None else end - 1}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A Content-Range as received: bytes [start, end), or none for a 416; the size is None where it was `*`."""

    start: int | None
    end: int | None
    size_bytes: int | None


def parse_content_range(header: str | None) -> ContentRange | None:
    """Read a Content-Range header; None where it is missing, malformed or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(header) if header is not None else None
    if match is None:
        return None
    size = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return ContentRange(None, None, size) if size is not None else None
    start, end = int(match[1]), int(match[2]) + 1
    if end <= start or (size is not None and end > size):
        return None
    return ContentRange(start, end, size)
