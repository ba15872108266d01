"""UploadServer: the port where other peers fetch pieces. Answers: handler; whose turn it is: upload_turns.

One thread waits in epoll for idle connections, reads request heads and checks tickets; `slots` worker threads send.
Whoever finds every slot taken waits, or is refused as busy; slots and places are shared among addresses and peers.
One that says it was granted ahead waits until a transfer ends, or begins at once if there is none. A receiver that lets
its transfer trickle keeps nobody else from theirs. No payload byte passes through Python, but those that leave by TLS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from peer.transport.channel import TLS_HANDSHAKE, PlainChannel, TlsChannel
from peer.transport.handler import Answerer, Connection, UploadCounters
from peer.transport.member_tls import MemberTls
from peer.transport.pace import Pace
from peer.transport.rates import RateLimiter
from peer.transport.sockets import progress, set_send_timeout, shut_down
from peer.transport.upload_turns import BESIDE_SLOW_FACTOR, QUESTIONS, Turn, UploadTurns
from peer.transport.wire import HEAD_BYTES_MAX, HEAD_END, Asked, Request, format_answer, format_refusal, parse_request
from proto.errors import ConfigError, FrameInvalid, TicketInvalid
from proto.runtime import resources
from proto.wire.tickets import NONCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle, BlobStore, SignedHashes
    from proto.config.values import HostPort
    from proto.ids import Digest, PeerId, PeerName

_SWEEP_S: Final = 1.0
_READ: Final = select.EPOLLIN | select.EPOLLONESHOT
_HANG_UP: Final = select.EPOLLRDHUP | select.EPOLLONESHOT
_BACKLOG: Final = 512
# Without descriptors the listener stays readable: do not spin meanwhile.
_ACCEPT_PAUSE_S: Final = 0.02
# In a turn of the watching thread: who connects without end keeps it from nobody's request.
_ACCEPTS_MAX: Final = 16
# Of the connections that may be open, so many make room at a time.
_DROPPED_PART: Final = 64
# With so many transfers at once a rate limit may leave this part of the rate to one of them.
_SHARE_PART: Final = 1 / 4

log = logging.getLogger(__name__)


class UploadServer:
    """Listens as soon as it is made; close() ends every thread and connection.

    `listen` may have port 0, for any; `supernode_key` gives the key that tickets are checked with, or None while
    no supernode was met; `name` is this node's, which downloaders' proofs must name. `slots` transfers go on at once
    (more beside those whose receivers are slow) and `queue_max` wait; `rate_limit_bytes_s` is over all of them, 0 for
    none. An idle connection, or one that does not finish its request, is closed after `idle_s`; a receiver that takes
    nothing for `send_timeout_s`, or less than a floor over such a time, is cut off. `sign_hash` signs hashes of pieces
    where the server is the supernode's; a peer passes on what it was told. `clock`: Unix seconds, by which tickets end.
    The port speaks TLS, too, with what `tls` has; blobs that `encrypted_alone` names are given in no other way.
    Raises ConfigError when it cannot listen.
    """

    def __init__(
        self,
        listen: HostPort,
        store: BlobStore,
        supernode_key: Callable[[], bytes | None],
        name: PeerName,
        *,
        slots: int = 8,
        queue_max: int = 8,
        rate_limit_bytes_s: int = 0,
        connections_max: int = 1024,
        idle_s: float = 660.0,
        send_timeout_s: float = 10.0,
        sign_hash: Callable[[BlobHandle, int], SignedHashes | None] | None = None,
        clock: Callable[[], float] = time.time,
        tls: MemberTls | None = None,
        encrypted_alone: Callable[[Digest], bool] = lambda digest: False,
    ) -> None:
        if slots < 1 or queue_max < 0 or connections_max < 1:
            raise ConfigError(f"upload slots {slots}, queue {queue_max}, connections {connections_max}: too few")
        self.counters: Final = UploadCounters()
        self._limiter = RateLimiter(rate_limit_bytes_s)
        self._tls = tls or MemberTls()
        self._answerer = Answerer(
            store, supernode_key, name, self._limiter, self.counters, sign_hash, clock, encrypted_alone
        )
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._send_timeout_s = send_timeout_s
        # The switch for sharing: off means 404 to everything new; what is under way ends well.
        self.enabled = True
        self._closed = False
        # Guards the turns, what they are for, and the number of idle workers.
        self._changed = threading.Condition()
        self._turns = UploadTurns(slots, queue_max)
        self._asked: dict[Turn, tuple[Connection, Request]] = {}
        self._workers_idle = 0
        self._workers_max = slots * BESIDE_SLOW_FACTOR + 2 * QUESTIONS
        # Of transfers that go on; the epoll thread's own.
        self._paces: dict[Turn, Pace] = {}
        self._connections: dict[int, Connection] = {}
        self._listener = resources.listen("--upload-listen", listen, _BACKLOG)
        self._listener.setblocking(False)
        # HOST:PORT as bound.
        self.address: Final = resources.bound_address(self._listener)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._workers: list[threading.Thread] = []
        for _ in range(slots + QUESTIONS):
            self._start_worker()
        self._watcher = threading.Thread(target=self._watch, name="upload-epoll", daemon=True)
        self._watcher.start()

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._connections)

    @property
    def active(self) -> int:
        """Requests being served or waiting for their turn."""
        return len(self._turns)

    def is_connected(self, peer: PeerId) -> bool:
        """Whether this peer is connected now, and proved that it is; from any thread."""
        return any(each.member == peer for each in list(self._connections.values()))

    def set_rate_limit(self, rate_bytes_s: int) -> None:
        """Bytes a second over all connections, 0 for none."""
        self._limiter.set_rate(rate_bytes_s)

    def close(self) -> None:
        """End everything now; transfers are cut off."""
        if self._closed:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        os.eventfd_write(self._wake_fd, 1)
        self._limiter.set_rate(0)
        self._watcher.join()
        for connection in list(self._connections.values()):
            shut_down(connection.sock)
        for thread in self._workers:
            thread.join()
        self._answerer.handles.close()
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
                try:
                    self._ready(descriptor)
                except Exception:
                    # Our own bug: told loudly, but all others keep this thread.
                    log.exception("upload_failed")
                    if (connection := self._connections.get(descriptor)) is not None:
                        self._give_up(connection)
            if time.monotonic() - swept_s >= _SWEEP_S:
                swept_s = time.monotonic()
                try:
                    self._sweep(swept_s)
                except Exception:
                    log.exception("upload_failed")

    def _ready(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
        elif (connection := self._connections.get(descriptor)) is None:
            pass
        elif connection.turn is None:
            self._read(connection)
        else:
            self._hung_up(connection)

    def _give_up(self, connection: Connection) -> None:
        """Drop it with its place, if it has one. One that is being served is its worker's."""
        if connection.turn is None:
            self._drop(connection)
        else:
            self._hung_up(connection)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                sock, remote = self._listener.accept()
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
            until_s = time.monotonic() + self._idle_s
            self._connections[sock.fileno()] = Connection(PlainChannel(sock), remote[0], until_s)
            self._epoll.register(sock, _READ)

    def _drop_idle(self) -> bool:
        """Make room: of the address with most connections those that were idle the longest go.

        Some at a time, since all are looked through: who connects without end pays more for it than we do.
        """
        connections = list(self._connections.values())  # workers drop some meanwhile
        idle = [each for each in connections if each.turn is None]
        if not idle:
            return False
        open_from = Counter(each.address for each in connections)
        idle.sort(key=lambda each: (-open_from[each.address], each.deadline_s))
        for connection in idle[: max(1, self._connections_max // _DROPPED_PART)]:
            self._drop(connection)
        return True

    def _read(self, connection: Connection) -> None:
        room = HEAD_BYTES_MAX + 1 - len(connection.received)
        try:
            self._open(connection)
            chunk = connection.channel.receive_now(room)
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

    def _open(self, connection: Connection) -> None:
        """See whether it speaks TLS, and shake hands if it does. Raises BlockingIOError until that is done, OSError."""
        channel = connection.channel
        if connection.new:
            speaks_tls = channel.first_byte_now() == TLS_HANDSHAKE
            connection.new = False
            context = self._tls.server if speaks_tls else None
            if context is not None:
                descriptor = channel.sock.fileno()
                try:
                    channel = connection.channel = TlsChannel(channel.sock, context)
                except OSError:
                    # It is closed already, and the number free for another.
                    self._connections.pop(descriptor, None)
                    raise
        if isinstance(channel, TlsChannel):
            channel.shake_hands_now()

    def _take_request(self, connection: Connection, head: bytes, rest: int) -> None:
        try:
            request = parse_request(head)
            if rest:
                raise FrameInvalid("one request at a time, and without a body")
        except FrameInvalid as error:
            self._refuse(connection, 400, "malformed", str(error), keep_alive=False)
            return
        connection.deadline_s = time.monotonic() + self._idle_s
        keep_alive = request.keep_alive
        if request.asked is Asked.NONCE:
            self._give_nonce(connection, request)
            return
        if not self.enabled:
            self._refuse(connection, 404, "off", "sharing is switched off at this peer", keep_alive=keep_alive)
            return
        try:
            ticket = self._answerer.ticket_of(connection, request)
        except TicketInvalid as error:
            self._refuse(connection, 403, "ticket", str(error), keep_alive=keep_alive)
            return
        if ticket is None:
            self._refuse(connection, 503, "no_key", "no supernode known yet: come back later", keep_alive=keep_alive)
            return
        assert request.digest is not None
        if not self._answerer.may_travel(connection, request.digest, ticket):
            message = "this blob travels by TLS between members alone"
            self._refuse(connection, 403, "plain", message, keep_alive=keep_alive)
            return
        question = request.asked is not Asked.PIECES
        turn = Turn(connection.address, ticket.peer, time.monotonic(), request.ahead and not question, question)
        self._line_up(connection, request, turn)

    def _give_nonce(self, connection: Connection, request: Request) -> None:
        keep_alive = request.keep_alive
        if request.ticket and connection.nonce:
            try:
                self._answerer.introduced(connection, request)
            except TicketInvalid as error:
                self._refuse(connection, 403, "ticket", str(error), keep_alive=keep_alive)
                return
        connection.nonce = connection.nonce or os.urandom(NONCE_BYTES)
        self.counters.add_served("nonce")
        answer = format_answer(204, 0, nonce=connection.nonce, keep_alive=keep_alive)
        self._send_now(connection, answer, keep_alive=keep_alive)

    def _line_up(self, connection: Connection, request: Request, turn: Turn) -> None:
        """Have it served when its turn comes, or refuse it or whoever has more than their share."""
        with self._changed:
            connection.turn = turn
            self._asked[turn] = (connection, request)
            crowded_out = self._turns.ask(turn)
            refused = self._asked.pop(crowded_out) if crowded_out is not None else None
            if turn in self._asked and self._turns.waits(turn):
                # Whoever hangs up meanwhile gives its place back. Before a worker can take it: that watches for more.
                self._watch_for(connection, _HANG_UP)
            if self._turns.ready:
                self._add_worker()
                self._changed.notify()
        if refused is not None:
            other, its_request = refused
            other.turn = None
            self._refuse(other, 503, "busy", "every slot is taken", keep_alive=its_request.keep_alive)

    def _hung_up(self, connection: Connection) -> None:
        """While it waited for its turn; what is being served its worker sees."""
        with self._changed:
            turn = connection.turn
            if turn is None or turn.running:
                return
            self._turns.over(turn)
            self._asked.pop(turn, None)
        self._drop(connection)

    def _refuse(self, connection: Connection, status: int, reason: str, message: str, *, keep_alive: bool) -> None:
        self.counters.add_refused(reason)
        self._answerer.log_refusal(reason, message)
        self._send_now(connection, format_refusal(status, message, keep_alive=keep_alive), keep_alive=keep_alive)

    def _send_now(self, connection: Connection, answer: bytes, *, keep_alive: bool) -> None:
        """A few hundred bytes fit into any socket's buffer; who lets it fill up is dropped, never waited for."""
        try:
            sent = connection.channel.send_now(answer)
        except OSError:
            sent = 0
        if sent == len(answer) and keep_alive:
            self._await_request(connection)
        else:
            self._drop(connection)

    def _sweep(self, now_s: float) -> None:
        self._answerer.handles.close_idle(now_s)
        for connection in list(self._connections.values()):
            if connection.turn is None and now_s > connection.deadline_s:
                self._drop(connection)
        with self._changed:
            running = {turn: asked[0] for turn, asked in self._asked.items() if turn.running}
        stalled = self._measure(running, now_s)
        with self._changed:
            overdue = self._turns.look(now_s)
            if self._turns.ready:
                self._add_worker()
                self._changed.notify_all()
        for reason, turns in (("stalled", stalled), ("share", [overdue] if overdue is not None else [])):
            for turn in turns:
                # Its worker finds out and drops it.
                self.counters.add_refused(reason)
                if turn in running:
                    shut_down(running[turn].sock)

    def _measure(self, running: dict[Turn, Connection], now_s: float) -> list[Turn]:
        """Who is slow; returns those that do not get on at all."""
        self._paces = {turn: pace for turn, pace in self._paces.items() if turn in running}
        limit = self._limiter.rate_bytes_s
        share_bytes_s = _SHARE_PART * limit / len(running) if limit and running else float("inf")
        stalled = []
        for turn, connection in running.items():
            reading = progress(connection.sock)
            if reading is None:
                continue
            pace = self._paces.get(turn)
            if pace is None:
                self._paces[turn] = Pace(reading, now_s, self._send_timeout_s)
                continue
            pace.take(reading, now_s, share_bytes_s)
            turn.slow = pace.slow
            if pace.stalled:
                stalled.append(turn)
        return stalled

    def _await_request(self, connection: Connection) -> None:
        """Watch it again; from any thread, the last thing its owner does with it."""
        connection.turn = None
        self._watch_for(connection, _READ)

    def _watch_for(self, connection: Connection, events: int) -> None:
        with contextlib.suppress(OSError):
            self._epoll.modify(connection.sock, events)

    def _drop(self, connection: Connection) -> None:
        # First out of the table: the number is free for a new connection once it is closed.
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()

    # --- the workers -------------------------------------------------------------------------------------------

    def _add_worker(self) -> None:
        """One more where all are busy with receivers that are slow."""
        if not self._workers_idle and len(self._workers) < self._workers_max:
            self._start_worker()

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._work, name=f"upload-{len(self._workers)}", daemon=True)
        self._workers.append(thread)
        thread.start()

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            connection, request = self._asked[turn]
            keep = False
            try:
                keep = not self._closed and connection.channel.is_open() and self._serve(connection, request)
            finally:
                with self._changed:
                    self._turns.over(turn)
                    del self._asked[turn]
                if keep:
                    connection.deadline_s = time.monotonic() + self._idle_s
                    self._await_request(connection)
                else:
                    self._drop(connection)

    def _next(self) -> Turn | None:
        """The turn that comes now; None once the server is closed."""
        with self._changed:
            self._workers_idle += 1
            while not self._closed and not self._turns.ready:
                self._changed.wait()
            self._workers_idle -= 1
            return None if self._closed else self._turns.take()

    def _serve(self, connection: Connection, request: Request) -> bool:
        try:
            connection.channel.begin(self._send_timeout_s)
            keep = self._answerer.answer(connection, request)
            connection.channel.end()
            return keep
        except OSError as error:
            log.debug("upload: connection ended: %s", error.strerror)
            return False
        except Exception:
            # Our own bug: told loudly, but the other peers keep this thread.
            log.exception("upload_failed")
            return False
