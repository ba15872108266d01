"""Range and Content-Range: one byte range of a blob, as RFC 9110 section 14 writes it. Pure text and arithmetic.

A header that we do not understand, and one that asks for several ranges, is ignored: the answer is the whole
blob with 200, which every client accepts. All ends are exclusive here and inclusive on the wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# More digits than any blob's size has (2**63 is 19); int() of a longer string would be work for nothing.
_NUMBER = r"[0-9]{1,19}"
_RANGE = re.compile(rf"\s*bytes\s*=\s*({_NUMBER})?-({_NUMBER})?\s*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(rf"\s*bytes\s+(?:({_NUMBER})-({_NUMBER})|\*)/({_NUMBER}|\*)\s*", re.IGNORECASE)


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


def parse_range(header: str | None) -> ByteRange | None:
    """Read a Range header; None means that it is to be ignored."""
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None:
        return None
    first, last = (int(group) if group is not None else None for group in match.groups())
    if first is None:
        return ByteRange(None, None, suffix=last) if last is not None else None
    if last is not None and last < first:
        return None
    return ByteRange(first, last)


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


def select(header: str | None, size_bytes: int) -> Part:
    """What a blob of `size_bytes` answers to this Range header.

    An empty blob is sent whole: some clients put a Range on everything, and no range of nothing could be met.
    """
    asked = parse_range(header)
    if asked is None or size_bytes == 0:
        return Part(200, 0, size_bytes, size_bytes)
    resolved = asked.resolve(size_bytes)
    if resolved is None:
        return Part(416, 0, 0, size_bytes)
    return Part(206, resolved[0], resolved[1], size_bytes)


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
