"""HTTP/1.1 heads and bodies on blocking sockets, as far as a proxy that must not alter them needs.

Header lines keep their order, case and repetitions. Not a general parser: no trailers, no obsolete folding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

HEAD_MAX_BYTES: Final = 1 << 17
_READ_BYTES: Final = 1 << 18
_TLS_HANDSHAKE: Final = b"\x16"
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/")


class WireError(Exception):
    """The other side ended in the middle of a message, or did not speak HTTP."""


@dataclass(slots=True)
class Head:
    """A request or response head: its first line and its header lines in order."""

    first_line: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def remove(self, name: str) -> None:
        """Remove all headers of that name."""
        self.headers = [(key, value) for key, value in self.headers if key.lower() != name.lower()]

    def replace(self, name: str, value: str) -> None:
        """Set a header in place of all of that name."""
        self.remove(name)
        self.headers.append((name, value))

    def encode(self) -> bytes:
        """The head as sent, with its empty line."""
        lines = [self.first_line, *(f"{key}: {value}" for key, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def wants_close(self) -> bool:
        """Whether the connection ends after this message."""
        connection = (self.get("Connection") or "").lower()
        return "close" in connection or (self.first_line.endswith("HTTP/1.0") and connection != "keep-alive")


class SocketReader:
    """Reads messages from one socket, at most `read_bytes` at a time. One user at a time."""

    def __init__(self, sock: socket.socket, read_bytes: int = _READ_BYTES) -> None:
        self._sock = sock
        self._read_bytes = read_bytes
        self._pending = b""

    def read_head(self) -> Head | None:
        """The next head; None where the other side ended before a first byte. Raises WireError."""
        while b"\r\n\r\n" not in self._pending:
            if len(self._pending) > HEAD_MAX_BYTES:
                raise WireError(f"a head of more than {HEAD_MAX_BYTES} bytes")
            received = self._sock.recv(self._read_bytes)
            if not received:
                if self._pending:
                    raise WireError("the connection ended within a head")
                return None
            self._pending += received
            if self._pending.startswith(_TLS_HANDSHAKE):
                # Clients that may use either try TLS first, and wait 10 s for an answer to it.
                raise WireError("a TLS handshake on a plain connection")
        raw, self._pending = self._pending.split(b"\r\n\r\n", 1)
        first_line, *lines = raw.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Head(first_line, headers)

    def take_pending(self) -> bytes:
        """What came with the head beyond it. Whoever takes it reads the rest from the socket."""
        pending, self._pending = self._pending, b""
        return pending

    def read_sized(self, size_bytes: int) -> Iterator[bytes]:
        """Exactly `size_bytes`, in the parts in which they come. Raises WireError if fewer come."""
        left_bytes = size_bytes
        while left_bytes:
            part = self._take(left_bytes)
            if not part:
                raise WireError(f"the connection ended {left_bytes} bytes before the end of a body")
            left_bytes -= len(part)
            yield part

    def read_chunked(self) -> Iterator[bytes]:
        """The payload of a chunked body. Raises WireError if it ends early."""
        while size_bytes := int(self._read_line().partition(b";")[0], 16):
            yield from self.read_sized(size_bytes)
            self._read_line()
        while self._read_line():
            pass

    def read_to_end(self) -> Iterator[bytes]:
        """All until the other side closes."""
        while part := self._take(self._read_bytes):
            yield part

    def _take(self, most_bytes: int) -> bytes:
        if self._pending:
            part, self._pending = self._pending[:most_bytes], self._pending[most_bytes:]
            return part
        return self._sock.recv(min(most_bytes, self._read_bytes))

    def _read_line(self) -> bytes:
        while b"\r\n" not in self._pending:
            received = self._sock.recv(self._read_bytes)
            if not received:
                raise WireError("the connection ended within a chunked body")
            self._pending += received
        line, self._pending = self._pending.split(b"\r\n", 1)
        return line


def request_body(head: Head, reader: SocketReader) -> Iterator[bytes]:
    """The payload of a request."""
    if (head.get("Transfer-Encoding") or "").lower() == "chunked":
        return reader.read_chunked()
    return reader.read_sized(int(head.get("Content-Length") or 0))


def response_body(method: str, status: int, head: Head, reader: SocketReader) -> Iterator[bytes]:
    """The payload of a response."""
    if method == "HEAD" or status in (204, 304):
        return reader.read_sized(0)
    if (head.get("Transfer-Encoding") or "").lower() == "chunked":
        return reader.read_chunked()
    length = head.get("Content-Length")
    return reader.read_to_end() if length is None else reader.read_sized(int(length))


def parse_range(value: str | None) -> tuple[int, int | None] | None:
    """`bytes=A-B` or `bytes=A-` as (A, B or None); None for no Range or for another form."""
    match = _RANGE.fullmatch(value or "")
    return match and (int(match[1]), int(match[2]) if match[2] else None)


def content_range_start(value: str | None) -> int:
    """Where in the whole a body begins, by its Content-Range; 0 without one."""
    match = _CONTENT_RANGE.match(value or "")
    return int(match[1]) if match else 0
