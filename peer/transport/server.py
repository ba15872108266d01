"""UploadServer: the port where other peers fetch pieces. Connections, admission and threads; answers: handler.

One thread waits in epoll for idle connections and reads request heads; `slots` worker threads send. A request that
finds every slot taken waits in a short queue, first come first served, and beyond that is refused as busy. One that
says it was granted ahead waits until a transfer ends, or begins at once if there is none.
No payload byte passes through Python.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from peer.transport.handler import Answerer, Connection, UploadCounters
from peer.transport.rates import RateLimiter
from peer.transport.sockets import set_send_timeout, shut_down
from peer.transport.wire import HEAD_BYTES_MAX, HEAD_END, Asked, Request, format_answer, format_refusal, parse_request
from proto.errors import ConfigError, FrameInvalid
from proto.runtime import resources
from proto.wire.tickets import NONCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle, BlobStore, SignedHashes
    from proto.config.values import HostPort

_SWEEP_S: Final = 1.0
_READ: Final = select.EPOLLIN | select.EPOLLONESHOT
_BACKLOG: Final = 512
# Without descriptors the listener stays readable: do not spin meanwhile.
_ACCEPT_PAUSE_S: Final = 0.02

log = logging.getLogger(__name__)


class UploadServer:
    """Listens as soon as it is made; close() ends every thread and connection.

    `listen` may have port 0, for any; `supernode_key` gives the key that tickets are checked with, or None while
    no supernode was met. `slots` transfers go on at once and `queue_max` wait; `rate_limit_bytes_s` is over all of
    them, 0 for none. An idle connection, or one that does not finish its request, is closed after `idle_s`; a
    receiver that takes nothing for `send_timeout_s` is cut off. `sign_hash` signs hashes of pieces where the server is
    the supernode's; a peer passes on what it was told. Raises ConfigError when it cannot listen.
    """

    def __init__(
        self,
        listen: HostPort,
        store: BlobStore,
        supernode_key: Callable[[], bytes | None],
        *,
        slots: int = 8,
        queue_max: int = 8,
        rate_limit_bytes_s: int = 0,
        connections_max: int = 1024,
        idle_s: float = 660.0,
        send_timeout_s: float = 10.0,
        sign_hash: Callable[[BlobHandle, int], SignedHashes | None] | None = None,
    ) -> None:
        if slots < 1 or queue_max < 0 or connections_max < 1:
            raise ConfigError(f"upload slots {slots}, queue {queue_max}, connections {connections_max}: too few")
        self.counters: Final = UploadCounters()
        self._limiter = RateLimiter(rate_limit_bytes_s)
        self._answerer = Answerer(store, supernode_key, self._limiter, self.counters, send_timeout_s, sign_hash)
        self._admitted_max = slots + queue_max
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._send_timeout_s = send_timeout_s
        # The switch for sharing: off means 404 to everything new; what is under way ends well.
        self.enabled = True
        self._closed = False
        self._admitted = 0
        self._admission = threading.Lock()
        # Admitted requests that wait for the end of a transfer, in order of arrival.
        self._ahead: deque[tuple[Connection, Request]] = deque()
        self._connections: dict[int, Connection] = {}
        self._queue: queue.SimpleQueue[tuple[Connection, Request] | None] = queue.SimpleQueue()
        self._listener = resources.listen("--upload-listen", listen, _BACKLOG)
        self._listener.setblocking(False)
        # HOST:PORT as bound.
        self.address: Final = resources.bound_address(self._listener)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._threads = [threading.Thread(target=self._watch, name="upload-epoll", daemon=True)]
        self._threads += [
            threading.Thread(target=self._work, name=f"upload-{number}", daemon=True) for number in range(slots)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._connections)

    @property
    def active(self) -> int:
        """Requests being served or waiting for a slot."""
        return self._admitted

    def set_rate_limit(self, rate_bytes_s: int) -> None:
        """Bytes a second over all connections, 0 for none."""
        self._limiter.set_rate(rate_bytes_s)

    def close(self) -> None:
        """End everything now; transfers are cut off."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake_fd, 1)
        self._limiter.set_rate(0)
        for connection in list(self._connections.values()):
            shut_down(connection.sock)
        for _ in self._threads[1:]:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.close()
        self._listener.close()
        os.close(self._wake_fd)

    # --- the epoll thread --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        swept_s = time.monotonic()
        while not self._closed:
            for descriptor, _ in self._epoll.poll(_SWEEP_S):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._connections:
                    self._read(self._connections[descriptor])
            if time.monotonic() - swept_s >= _SWEEP_S:
                swept_s = time.monotonic()
                self._sweep(swept_s)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors, or the connection is gone already: the others go on.
                self.counters.add_refused("connections")
                time.sleep(_ACCEPT_PAUSE_S)
                return
            if len(self._connections) >= self._connections_max and not self._drop_idle():
                self.counters.add_refused("connections")
                sock.close()
                continue
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_send_timeout(sock, self._send_timeout_s)
            self._connections[sock.fileno()] = Connection(sock, time.monotonic() + self._idle_s)
            self._epoll.register(sock, _READ)

    def _drop_idle(self) -> bool:
        """Make room for one more: the connection that was idle the longest goes, if any is."""
        idle = [each for each in self._connections.values() if not each.serving]
        if not idle:
            return False
        self._drop(min(idle, key=lambda each: each.deadline_s))
        return True

    def _read(self, connection: Connection) -> None:
        room = HEAD_BYTES_MAX + 1 - len(connection.received)
        try:
            chunk = connection.sock.recv(room, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._await_request(connection)
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop(connection)
            return
        connection.received += chunk
        end = connection.received.find(HEAD_END)
        if end >= 0:
            head, rest = bytes(connection.received[:end]), len(connection.received) - end - len(HEAD_END)
            connection.received.clear()
            self._take_request(connection, head, rest)
        elif len(connection.received) > HEAD_BYTES_MAX:
            self._refuse(connection, 400, "malformed", f"a head has at most {HEAD_BYTES_MAX} bytes", keep_alive=False)
        else:
            self._await_request(connection)

    def _take_request(self, connection: Connection, head: bytes, rest: int) -> None:
        try:
            request = parse_request(head)
            if rest:
                raise FrameInvalid("one request at a time, and without a body")
        except FrameInvalid as error:
            self._refuse(connection, 400, "malformed", str(error), keep_alive=False)
            return
        connection.deadline_s = time.monotonic() + self._idle_s
        if request.asked is Asked.NONCE:
            connection.nonce = connection.nonce or os.urandom(NONCE_BYTES)
            self.counters.add_served("nonce")
            answer = format_answer(204, 0, nonce=connection.nonce, keep_alive=request.keep_alive)
            self._send_now(connection, answer, keep_alive=request.keep_alive)
        elif not self.enabled:
            self._refuse(connection, 404, "off", "sharing is switched off at this peer", keep_alive=request.keep_alive)
        elif not self._admit():
            self._refuse(connection, 503, "busy", "every slot is taken", keep_alive=request.keep_alive)
        else:
            connection.serving = True
            self._line_up(connection, request)

    def _admit(self) -> bool:
        with self._admission:
            if self._admitted >= self._admitted_max:
                return False
            self._admitted += 1
            return True

    def _line_up(self, connection: Connection, request: Request) -> None:
        """For a free slot, or behind the transfers that are under way."""
        with self._admission:
            if request.ahead and self._admitted - len(self._ahead) > 1:
                self._ahead.append((connection, request))
                return
        self._queue.put((connection, request))

    def _transfer_over(self) -> None:
        """Its slot is free, and the first request that waited for this may go."""
        with self._admission:
            self._admitted -= 1
            following = self._ahead.popleft() if self._ahead else None
        if following is not None:
            self._queue.put(following)

    def _refuse(self, connection: Connection, status: int, reason: str, message: str, *, keep_alive: bool) -> None:
        self.counters.add_refused(reason)
        self._answerer.log_refusal(reason, message)
        self._send_now(connection, format_refusal(status, message, keep_alive=keep_alive), keep_alive=keep_alive)

    def _send_now(self, connection: Connection, answer: bytes, *, keep_alive: bool) -> None:
        """A few hundred bytes fit into any socket's buffer; who lets it fill up is dropped, never waited for."""
        try:
            sent = connection.sock.send(answer, socket.MSG_DONTWAIT)
        except OSError:
            sent = 0
        if sent == len(answer) and keep_alive:
            self._await_request(connection)
        else:
            self._drop(connection)

    def _sweep(self, now_s: float) -> None:
        for connection in list(self._connections.values()):
            if now_s <= connection.deadline_s:
                continue
            if connection.serving:
                # Its worker finds out and drops it.
                self.counters.add_refused("stalled")
                shut_down(connection.sock)
            else:
                self._drop(connection)

    def _await_request(self, connection: Connection) -> None:
        """Watch it again; from any thread, the last thing its owner does with it."""
        connection.serving = False
        with contextlib.suppress(OSError):
            self._epoll.modify(connection.sock, _READ)

    def _drop(self, connection: Connection) -> None:
        # First out of the table: the number is free for a new connection once it is closed.
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()

    # --- the workers -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            connection, request = item
            keep = False
            try:
                keep = not self._closed and self._still_there(connection) and self._serve(connection, request)
            finally:
                self._transfer_over()
                if keep:
                    connection.deadline_s = time.monotonic() + self._idle_s
                    self._await_request(connection)
                else:
                    self._drop(connection)

    def _serve(self, connection: Connection, request: Request) -> bool:
        try:
            return self._answerer.answer(connection, request)
        except OSError as error:
            log.debug("upload: connection ended: %s", error.strerror)
            return False
        except Exception:
            # Our own bug: told loudly, but the other peers keep this thread.
            log.exception("upload_failed")
            return False

    def _still_there(self, connection: Connection) -> bool:
        """Whoever hung up while waiting for a slot takes none."""
        try:
            return bool(connection.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False
