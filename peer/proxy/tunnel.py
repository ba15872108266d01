"""Moves bytes between two sockets, in threads, as they come: of a tunnel, or of one whose TLS ends here.

It reads nothing of what it moves. A socket is non-blocking; one of the two may be a TLS socket. When one end has sent
all, the other is told so, and may go on sending.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from peer.transport.cancellation import Cancellation, FetchCancelled

BUFFER_BYTES: Final = 128 * 1024
_WOULD_WAIT: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
# Turns of one direction before the other has one, and it is looked whether all shall end.
_TURNS: Final = 64


@dataclass(slots=True)
class _Way:
    """One direction: bytes that were read and wait to be written, and whether the source has ended."""

    source: socket.socket
    sink: socket.socket
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(BUFFER_BYTES)))
    start: int = 0
    end: int = 0
    ended: bool = False
    shut: bool = False

    @property
    def waiting(self) -> bool:
        return self.start < self.end

    def move(self) -> bool:
        """Read and write what is possible now; whether anything was. Raises OSError when an end is broken."""
        moved = False
        send, receive, buffer = self.sink.send, self.source.recv_into, self.buffer
        with contextlib.suppress(*_WOULD_WAIT):
            for _ in range(_TURNS):
                # A TLS socket takes a record of 16 KiB at a time.
                while self.start < self.end:
                    self.start += send(buffer[self.start : self.end])
                    moved = True
                if self.ended:
                    break
                received = receive(buffer)
                self.start, self.end, self.ended = 0, received, received == 0
                moved = True
            if self.ended and not self.shut:
                self.shut = True
                _end_writing(self.sink)
        return moved


def _end_writing(sink: socket.socket) -> None:
    """Not at a TLS end: what is said there, HTTP, tells itself where it ends."""
    if not isinstance(sink, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def carry(client: socket.socket, server: socket.socket, idle_s: float, cancel: Cancellation) -> None:
    """Until both have said all, one is broken, nothing came for `idle_s`, or it was cancelled. Closes neither.

    A TLS client that has ended ends it all: it waits for no answer.
    """
    up, down = _Way(client, server), _Way(server, client)
    is_tls = isinstance(client, ssl.SSLSocket)
    with contextlib.suppress(OSError):
        while not cancel.cancelled:
            moved = down.move()
            moved = up.move() or moved
            if (up.shut and down.shut) or (is_tls and (down.shut or up.shut)):
                return
            if not moved and not _wait(up, down, idle_s):
                return


def _wait(up: _Way, down: _Way, idle_s: float) -> bool:
    """Until one of the two can be read from or written to. A TLS client may have to read to write: it does both."""
    poller = select.poll()
    for sock, reads, writes in ((up.source, up, down), (down.source, down, up)):
        wanted = 0
        if not reads.ended and not reads.waiting:
            wanted |= select.POLLIN
        if writes.waiting:
            wanted |= select.POLLOUT
            wanted |= select.POLLIN if isinstance(sock, ssl.SSLSocket) and not reads.waiting else 0
        if wanted:  # else it would wake us for having been hung up
            poller.register(sock.fileno(), wanted)
    return bool(poller.poll(idle_s * 1000))


class Tunnels:
    """The tunnels of a node: a thread each, and no more than `limit` of them, of one client half as many at most.

    close() it in the end.
    """

    def __init__(self, limit: int, idle_s: float) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._cancel = Cancellation()
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="tunnel")
        self.open = 0
        self._open_of: Counter[str] = Counter()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where the work that leads to a tunnel is done."""
        return self._threads

    @property
    def cancel(self) -> Cancellation:
        """Cancelled when all tunnels end."""
        return self._cancel

    def admit(self, client: str) -> bool:
        """Whether there is room for one more of this client address, which is then taken: release() it."""
        with self._lock:
            if self.open >= self._limit or self._open_of[client] >= max(1, self._limit // 2):
                return False
            self.open += 1
            self._open_of[client] += 1
            return True

    def release(self, client: str) -> None:
        """A tunnel has ended, or did not come to be."""
        with self._lock:
            self.open -= 1
            self._open_of[client] -= 1
            if not self._open_of[client]:
                del self._open_of[client]

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """In a thread: see carry(). Closes both."""
        with contextlib.suppress(FetchCancelled), contextlib.closing(client), contextlib.closing(server):
            try:
                self._cancel.attach(client)
                self._cancel.attach(server)
                carry(client, server, self._idle_s, self._cancel)
            finally:
                self._cancel.detach(client)
                self._cancel.detach(server)

    def close(self) -> None:
        """End all tunnels and join their threads."""
        self._cancel.cancel()
        self._threads.shutdown(cancel_futures=True)


def send_all(sock: socket.socket, content: bytes, timeout_s: float) -> None:
    """All of it to a non-blocking socket, waiting for room. Raises OSError."""
    until_s, rest = time.monotonic() + timeout_s, memoryview(content)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(sock.fileno(), select.POLLOUT)
            if not poller.poll(max(0.0, until_s - time.monotonic()) * 1000):
                raise TimeoutError from None
