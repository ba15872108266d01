"""A blob's bytes as a registry sends them: which part of the blob they are, and no byte more.

It trusts no header before comparing it with the others and with what was asked. Digests are checked elsewhere.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from peer.registry.base import BlobBody
from peer.registry.sockets import REASON_LENGTH_MAX
from proto.errors import UpstreamError, UpstreamKind
from proto.oci.ranges import parse_content_range

if TYPE_CHECKING:
    from peer.registry.exchange import Exchange


_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
# gzip or zlib, by its header.
_ANY_FORMAT: Final = 47
INFLATE_BYTES: Final = 64 * 1024


class HttpBody(BlobBody):
    """See peer.registry.base.BlobBody."""

    def __init__(
        self, exchange: Exchange, start: int, end: int | None, size_bytes: int | None, *, is_range: bool
    ) -> None:
        self._exchange = exchange
        self.is_range = is_range
        self.start = start
        self.end = end
        self.size_bytes = size_bytes
        self.position = start

    def readinto(self, view: memoryview) -> int:
        if self.end is not None and self.position >= self.end:
            if self._exchange.readinto(memoryview(bytearray(1))):
                raise _content_error(self._exchange, "sent more bytes than it announced")
            return 0
        if self.end is not None:
            view = view[: self.end - self.position]
        count = self._exchange.readinto(view)
        if count == 0 and self.end is not None and len(view):
            raise UpstreamError(
                f"{self._exchange.endpoint.host}: body ended {self.end - self.position} bytes early",
                UpstreamKind.UNAVAILABLE,
            )
        self.position += count
        return count

    def take_slice(self, count: int) -> None:
        """See BlobBody: these come over a network."""

    def close(self) -> None:
        """End reading; the connection is kept if the body was read to its end. Idempotent."""
        self._exchange.close()


class InflatedBody(HttpBody):
    """A whole blob that its registry compressed on the way, though nobody asked it to. Its size is not known."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, 0, None, None, is_range=False)
        self._inflate = zlib.decompressobj(wbits=_ANY_FORMAT)
        self._buffer = memoryview(bytearray(INFLATE_BYTES))

    def readinto(self, view: memoryview) -> int:
        try:
            while len(view):
                content = self._inflate.decompress(self._inflate.unconsumed_tail, len(view))
                if not content and not self._inflate.eof:
                    received = self._exchange.readinto(self._buffer)
                    if not received:
                        raise UpstreamError(f"{self._exchange.endpoint.host}: ended early", UpstreamKind.UNAVAILABLE)
                    content = self._inflate.decompress(self._buffer[:received], len(view))
                if content or self._inflate.eof:
                    view[: len(content)] = content
                    self.position += len(content)
                    return len(content)
        except zlib.error as error:
            raise _content_error(self._exchange, f"compressed body is damaged: {error}") from error
        return 0


def http_body(exchange: Exchange, start: int, end: int | None) -> HttpBody:
    """The body of a 200, 206 or 416 answer to a request for bytes [start, end). Raises UpstreamError (content)."""
    if exchange.status == 200 and is_encoded(exchange):
        return InflatedBody(exchange)
    if exchange.status == 200:
        size = exchange.content_length
        return HttpBody(exchange, 0, size, size, is_range=False)
    header = exchange.header("Content-Range")
    got = parse_content_range(header)
    if exchange.status == 416:
        return _unsatisfied(exchange, start, got.size_bytes if got is not None else None)
    if got is None or got.start is None or got.end is None:
        raise _content_error(exchange, f"206 with Content-Range {header!r}")
    if got.start != start or (end is not None and got.end > end):
        raise _content_error(exchange, f"asked for bytes {start}-{end}, answered {header!r}")
    length = exchange.content_length
    if length is not None and length > got.end - got.start:
        raise _content_error(exchange, f"{length} bytes announced for {header!r}")
    return HttpBody(exchange, got.start, got.end, got.size_bytes, is_range=True)


def _unsatisfied(exchange: Exchange, start: int, size_bytes: int | None) -> HttpBody:
    """A 416: its body may announce the blob's length and hold a few bytes, so it is never read."""
    exchange.close()
    if size_bytes == 0 and start == 0:
        return HttpBody(exchange, 0, 0, 0, is_range=True)
    raise _content_error(exchange, f"no bytes from {start} in a blob of {size_bytes}", status=416)


def _content_error(exchange: Exchange, what: str, status: int | None = None) -> UpstreamError:
    reason = what[:REASON_LENGTH_MAX]
    return UpstreamError(f"{exchange.endpoint.host}: {reason}", UpstreamKind.CONTENT, status=status)


def is_encoded(exchange: Exchange) -> bool:
    """Whether the bytes are not the blob's own, but compressed."""
    return (exchange.header("Content-Encoding") or "").strip().lower() in _ENCODINGS
