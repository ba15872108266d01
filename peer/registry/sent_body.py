"""Sends the body of one request to an origin, as its client sends it. Blocking; knows no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

    from peer.registry.base import SentBody

# So long an origin may take none of it.
STALL_S: Final = 60.0


class WholeBody:
    """Implements peer.registry.base.SentBody: bytes that are in hand."""

    expects_continue = False

    def __init__(self, content: bytes) -> None:
        self.length: int | None = len(content)
        self._left = content

    def proceed(self) -> None:
        """They wait for nothing."""

    def read(self) -> bytes:
        left, self._left = self._left, b""
        return left


class BodySender:
    """`begun` and `ended` tell how far it came. The socket has sent the request's head, which told the framing."""

    def __init__(self, sock: socket.socket, body: SentBody) -> None:
        self._sock = sock
        self._body = body
        self.begun = self.ended = False

    def send(self) -> None:
        """All of it. Raises OSError, and what the body raises."""
        self.begun = True
        self._sock.settimeout(STALL_S)
        self._body.proceed()
        chunked = self._body.length is None
        while content := self._body.read():
            self._sock.sendall(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)
        if chunked:
            self._sock.sendall(b"0\r\n\r\n")
        self.ended = True
