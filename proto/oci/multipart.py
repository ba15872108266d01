"""The body of an answer to several ranges: multipart/byteranges, as RFC 9110 section 14.6 writes it. Pure text.

The parts stand in the order in which they were asked for, and none are joined: clients match them with what they asked.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proto.oci.ranges import Part


class Multipart:
    """The frame around the bytes of several parts, all of status 206 with an end and a size."""

    def __init__(self, parts: tuple[Part, ...], boundary: str | None = None) -> None:
        self.parts = parts
        # Nobody who chooses the content knows it.
        self._boundary = boundary or secrets.token_hex(16)

    @property
    def content_type(self) -> str:
        """Of the whole answer."""
        return f"multipart/byteranges; boundary={self._boundary}"

    @property
    def length_bytes(self) -> int:
        """Of the whole body."""
        content = sum((part.end or 0) - part.start for part in self.parts)
        return content + sum(len(self.head(number)) for number in range(len(self.parts))) + len(self.end)

    def head(self, number: int) -> bytes:
        """What comes before the bytes of this part, counted from 0."""
        before = "\r\n" if number else ""
        lines = f"Content-Type: application/octet-stream\r\nContent-Range: {self.parts[number].content_range}"
        return f"{before}--{self._boundary}\r\n{lines}\r\n\r\n".encode()

    @property
    def end(self) -> bytes:
        """What comes after the last part."""
        return f"\r\n--{self._boundary}--\r\n".encode()
