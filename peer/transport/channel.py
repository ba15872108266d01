"""How bytes of one connection to the upload server travel: plain, by sendfile, or by TLS between members.

Two kinds of calls: `..._now` never wait, for the thread that watches all connections; between begin() and end() a
worker has the channel, and its calls wait, each no longer than the server's send time-out. By TLS a call of a receiver
that takes nothing ends when the server shuts its socket down. Nothing of requests is known here.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Final

from peer.transport.member_tls import member_of
from peer.transport.sockets import set_unsent_limit, unsent_size
from proto.pieces import KIB

if TYPE_CHECKING:
    from proto.ids import PeerId

# The first byte of a TLS connection, and of no HTTP request.
TLS_HANDSHAKE: Final = b"\x16"
# Read from the store at a time.
_CHUNK_BYTES: Final = 256 * KIB
_buffers = threading.local()


class PlainChannel:
    """A blocking socket, with the kernel's own send time-out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        # Whose certificate was shown; None for nobody's.
        self.member: PeerId | None = None
        self._timeout_s = 0.0

    def first_byte_now(self) -> bytes:
        """The byte that comes first, which stays to be read; empty if none will. Raises BlockingIOError, OSError."""
        return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)

    def receive_now(self, size: int) -> bytes:
        """What has come; empty at the end. Raises BlockingIOError while there is nothing, and OSError."""
        return self.sock.recv(size, socket.MSG_DONTWAIT)

    def send_now(self, data: bytes) -> int:
        """How much of it the socket took. Raises OSError."""
        return self.sock.send(data, socket.MSG_DONTWAIT)

    def is_open(self) -> bool:
        """Whether the other end has not hung up. From any thread."""
        try:
            return bool(socket.socket.recv(self.sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def begin(self, timeout_s: float) -> None:
        """A worker takes it. Who takes nothing for so long is gone."""
        self._timeout_s = timeout_s

    def end(self) -> None:
        """The worker gives it back."""

    def send(self, data: bytes, *, more: bool = False) -> None:
        """All of it; `more`: what follows may go in the same segment. Raises OSError."""
        self.sock.sendall(data, socket.MSG_MORE if more else 0)

    def send_file(self, descriptor: int, offset: int, size: int) -> int:
        """Some of these bytes of a file; 0 at its end. Raises OSError."""
        return os.sendfile(self.sock.fileno(), descriptor, offset, size)

    def hold(self, unsent_bytes: int) -> None:
        """From now on the kernel takes no more than so many bytes that cannot leave yet. Raises OSError."""
        set_unsent_limit(self.sock, unsent_bytes)

    def await_left(self, unsent_bytes: int) -> None:
        """Until at most so many bytes have not left. Raises OSError."""
        # It is writable when half of the limit is left.
        set_unsent_limit(self.sock, 2 * unsent_bytes)
        poller, last = select.poll(), None
        poller.register(self.sock.fileno(), select.POLLOUT)
        while not (events := poller.poll(self._timeout_s * 1000)):
            unsent = unsent_size(self.sock)
            if last is not None and unsent >= last:
                raise TimeoutError("the receiver takes no more bytes")
            last = unsent
        if events[0][1] & (select.POLLHUP | select.POLLERR):
            raise ConnectionError("the receiver is gone")


class TlsChannel(PlainChannel):
    """Takes the socket over; `member` is known once shake_hands_now() has ended."""

    sock: ssl.SSLSocket

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.settimeout(0)
        super().__init__(context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))

    def shake_hands_now(self) -> None:
        """Get on with it. Raises BlockingIOError while the other end has to say something, and OSError."""
        if self.member is not None:
            return
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        self.member = member_of(self.sock)
        if self.member is None:
            raise ConnectionError("the certificate is no node's")

    def receive_now(self, size: int) -> bytes:
        try:
            return self.sock.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def send_now(self, data: bytes) -> int:
        return self.sock.send(data)

    def begin(self, timeout_s: float) -> None:
        super().begin(timeout_s)
        # The time-out of the socket itself, set by the server, makes it try again; who takes nothing is ended by pace.
        self.sock.settimeout(None)

    def end(self) -> None:
        self.sock.settimeout(0)

    def send(self, data: bytes, *, more: bool = False) -> None:
        self.sock.sendall(data)

    def send_file(self, descriptor: int, offset: int, size: int) -> int:
        view = getattr(_buffers, "view", None)
        if view is None:
            view = _buffers.view = memoryview(bytearray(_CHUNK_BYTES))
        count = os.preadv(descriptor, [view[: min(size, _CHUNK_BYTES)]], offset)
        self.sock.sendall(view[:count])
        return count
