"""One response of an origin: its head, and its body received into the caller's buffer. Blocking.

A body has a least rate and a longest silence. When it was read to its end the connection goes back to where it came
from; else it is closed.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from typing import TYPE_CHECKING, Final

from peer.registry.sockets import origin_errors
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable

    from peer.registry.base import OriginAnswer
    from peer.registry.connection import OriginConnection
    from peer.transport.cancellation import Cancellation

# Bodies of redirects and refusals are read to keep the connection, up to here; longer ones cost a new one.
DRAIN_BYTES_MAX = 64 * 1024
LENGTH_DIGITS_MAX = 18
FLOOR_S: Final = 30.0
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Exchange:
    """One response whose body is being read. Used by one thread."""

    def __init__(
        self,
        connection: OriginConnection,
        response: http.client.HTTPResponse,
        cancel: Cancellation,
        give_back: Callable[[OriginConnection], None],
        *,
        head: bool,
    ) -> None:
        # Whether it answers a HEAD, and so has no words of its own.
        self.head = head
        self.status = response.status
        self.reason = _one_line(response.reason)
        self.endpoint = connection.endpoint
        self._connection = connection
        self._response = response
        self._cancel = cancel
        self._give_back = give_back
        # The first redirect that led here.
        self.redirect: OriginAnswer | None = None
        self._chunked = bool(response.chunked)
        # None: the body ends with its last chunk, or with the connection.
        self._remaining = response.length
        self._finished = self._remaining == 0
        self._closed = False
        # Since when it is looked whether the body comes at its least rate: bytes, and seconds of waiting for them.
        self._floor_bytes, self._floor_waited_s = 0, 0.0
        self._began = False
        # Whether bytes may wait in the response's own buffer.
        self._buffered = True

    @property
    def content_length(self) -> int | None:
        """The announced length of the body; of a HEAD's answer, that of the body a GET would have."""
        text = self._response.getheader("Content-Length", "")
        # No blob has more digits, and Python refuses to read very many.
        is_length = text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS_MAX
        return int(text) if is_length and not self._chunked else None

    def header(self, name: str) -> str | None:
        """One header's value; several of the name are joined by commas."""
        return self._response.getheader(name)

    def headers(self, name: str) -> list[str]:
        """All lines of that name."""
        return self._response.headers.get_all(name, [])

    @property
    def lines(self) -> list[tuple[str, str]]:
        """All header lines in their order that make sense, read as UTF-8 where http.client reads Latin-1.

        Without the length, which is told anew of a body; of a HEAD's answer as far as it is one.
        """
        lines = [
            (name, _one_line(value).encode("latin-1").decode("utf-8", "surrogateescape"))
            for name, value in self._response.headers.items()
            if _HEADER_NAME.fullmatch(name) and name.lower() != "content-length"
        ]
        if self.head and self.content_length is not None:
            lines.append(("Content-Length", str(self.content_length)))
        return lines

    def readinto(self, view: memoryview) -> int:
        """Receive what is there, at least one byte; 0 at the end of the body.

        Raises UpstreamError (unavailable) for silence, a cut, or a body shorter than announced: what came before
        has been returned. Raises FetchCancelled.
        """
        if self._finished or self._closed or not len(view):
            return 0
        self._cancel.check()
        with origin_errors(self.endpoint, self._cancel, "receiving"):
            self._check_rate()
            asked_s = time.monotonic()
            count = self._receive(view)
            self._floor_waited_s += time.monotonic() - asked_s - self._connection.take_down_s()
            self._floor_bytes += count
        if not self._began:
            self._began, self._floor_waited_s = True, 0.0
            self._connection.body_began()
        if count == 0:
            self._finished = True
            if self._remaining:
                self._cancel.check()
                raise UpstreamError(
                    f"{self.endpoint.host}: connection ended {self._remaining} bytes early",
                    UpstreamKind.UNAVAILABLE,
                )
        elif self._remaining is not None:
            self._remaining -= count
            self._finished = self._remaining == 0
        return count

    def _check_rate(self) -> None:
        if self._floor_waited_s < FLOOR_S:
            return
        rate = self._floor_bytes / self._floor_waited_s
        self._floor_bytes, self._floor_waited_s = 0, 0.0
        if rate < self._connection.timeouts.rate_min_bytes_s:
            raise OSError(f"{rate:.0f} bytes a second are fewer than origin_rate_min")

    def _receive(self, view: memoryview) -> int:
        if self._chunked:
            received = self._response.read1(len(view))
            view[: len(received)] = received
            return len(received)
        if self._remaining is not None:
            view = view[: self._remaining]
        # What came with the head waits in a buffer, and readinto1 into a larger view would copy it and then wait for
        # more: until that buffer is known to be empty, take no more at a time than it holds.
        if self._buffered:
            view = view[: io.DEFAULT_BUFFER_SIZE]
        self._buffered = len(view) < io.DEFAULT_BUFFER_SIZE
        # Not the response's own readinto: that fills the whole view, and what it had is lost on a timeout.
        return self._response.fp.readinto1(view)

    def read_all(self, limit_bytes: int) -> bytes:
        """The whole body. Raises UpstreamError (content) where it is longer than the limit."""
        body, view = bytearray(), memoryview(bytearray(DRAIN_BYTES_MAX))
        while count := self.readinto(view):
            body += view[:count]
            if len(body) > limit_bytes:
                raise UpstreamError(
                    f"{self.endpoint.host}: sent more than {limit_bytes} bytes where less was due", UpstreamKind.CONTENT
                )
        return bytes(body)

    def drain(self) -> bytes:
        """The whole of a short body, so that the connection can be used again; then close. Empty for a longer one.

        Raises FetchCancelled.
        """
        self._began = True  # the head is there: no more is to be waited for than within a body
        self._connection.sock.settimeout(self._connection.timeouts.read_s)
        with contextlib.closing(self), contextlib.suppress(UpstreamError):
            if not self._finished and (self._remaining or 0) <= DRAIN_BYTES_MAX:
                return self.read_all(DRAIN_BYTES_MAX)
        return b""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        keep = self._finished and not self._remaining and not self._response.will_close
        self._cancel.detach(self._connection.sock)
        self._response.close()
        if keep and not self._cancel.cancelled:
            self._give_back(self._connection)
        else:
            self._connection.abort()


def _one_line(text: str) -> str:
    """Folded lines are joined; what no header may have is left out."""
    return "".join(
        char for char in " ".join(re.split("[\r\n]+", text)) if char == "\t" or (char >= " " and char != "\x7f")
    )
