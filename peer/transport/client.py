"""HttpTransport: pieces from other peers' upload servers, by a small pool of threads. See peer.transport.base.

It chooses nothing: which piece from whom is the scheduler's word. Each thread owns one reusable buffer; bytes go
from the socket into it and from it straight into the store's writer, which hashes and writes them in place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.transport.base import FetchOutcome
from peer.transport.connection import AnswerLate, ConnectionLost, HttpConnection
from peer.transport.member_tls import MemberTls
from peer.transport.pool import ConnectionPool
from peer.transport.queries import ask
from peer.transport.rates import RateLimiter
from peer.transport.request_lead import RequestLead
from peer.transport.wire import bitfield_path, decode_bitfield, hashes_path, pieces_path
from proto.bounded_dict import BoundedDict
from proto.errors import ConfigError, LocalError, PieceCorrupt, RemoteError
from proto.ids import short_peer
from proto.pieces import KIB, MIB
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import PieceWriter
    from peer.transport.base import PieceFetch, PieceSource
    from peer.transport.wire import Answer
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity

# What comes in is hashed and written while it is in the processor's cache.
BUFFER_BYTES: Final = 256 * KIB
BUFFERS_MAX_BYTES: Final = 32 * MIB
# One line of text, which comes with its head.
_REFUSAL_MAX_BYTES: Final = 4 * KIB
_REFUSAL_WAIT_S: Final = 1.0

# So long nobody connects ahead of use to where that failed: a thread would wait there that fetches need.
_AHEAD_REST_S: Final = 30.0
_AHEAD_FAILED_MAX: Final = 64

_REASON_OF_STATUS: Final = {
    503: FetchReason.BUSY,
    403: FetchReason.TICKET,
    404: FetchReason.NOT_HELD,
}

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Task:
    """A fetch on its way. `connection`, `cancelled` and `nearly_over` are guarded by the transport's lock."""

    fetch: PieceFetch
    done: Callable[[FetchOutcome], None]
    connection: HttpConnection | None = None
    cancelled: bool = False
    nearly_over: bool = False
    heard_s: float = 0.0
    asked_s: float = 0.0
    started_s: float = 0.0
    received_bytes: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A connection to open ahead of use."""

    source: PieceSource
    ticket: bytes


class _Failed(Exception):
    """A transfer ended with this FetchReason. `clean`: the connection stands where the next request begins."""

    def __init__(self, reason: str, *, clean: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.clean = clean


class HttpTransport:
    """See peer.transport.base.Transport.

    `workers` transfers go on at once, each with a buffer of `buffer_bytes` (32 MiB in all at most); more wait in
    order. `connect_timeout_s` bounds connecting and the nonce, `slot_wait_s` the time from the request to the first
    byte of the answer. `limiter` (shared) bounds what is received; `tls` is for sources that are encrypted,
    or for all. Raises ConfigError.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        workers: int = 8,
        buffer_bytes: int = BUFFER_BYTES,
        connect_timeout_s: float = 3.0,
        slot_wait_s: float = 15.0,
        idle_s: float = 600.0,
        limiter: RateLimiter | None = None,
        tls: MemberTls | None = None,
        encrypt_all: bool = False,
    ) -> None:
        if workers < 1 or buffer_bytes < 16 * KIB or workers * buffer_bytes > BUFFERS_MAX_BYTES:
            raise ConfigError(
                f"{workers} download threads with buffers of {buffer_bytes} bytes: at least 1 and {16 * KIB}, "
                f"at most {BUFFERS_MAX_BYTES} bytes in all"
            )
        self._pool = ConnectionPool(
            identity,
            tls or MemberTls(),
            encrypt_all=encrypt_all,
            connect_timeout_s=connect_timeout_s,
            idle_s=idle_s,
        )
        self._workers = workers
        self._buffer_bytes = buffer_bytes
        self._slot_wait_s = slot_wait_s
        self._limiter = limiter or RateLimiter()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Fetches that wait for others to be nearly over; with the same lock, and few.
        self._turns = threading.Condition(lock)
        self._lead = RequestLead()
        self._tasks: dict[int, _Task] = {}
        self._queue: deque[_Task | _Ahead] = deque()
        # Connections that are opened ahead of use, by address, or wait for a thread; and until when none is again.
        self._ahead: dict[str, HttpConnection | None] = {}
        self._ahead_rest_s: BoundedDict[str, float] = BoundedDict(_AHEAD_FAILED_MAX)
        self._threads: list[threading.Thread] = []
        self._free_threads = 0
        # The one used last is taken first: it is still in the processor's cache.
        self._buffers: list[memoryview] = []
        self._closed = False

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        """See Transport. The number must not be in use."""
        with self._changed:
            assert not self._closed
            assert fetch.fetch_id not in self._tasks
            task = _Task(fetch, done, heard_s=time.monotonic())
            self._tasks[fetch.fetch_id] = task
            self._enqueue(task)

    def _enqueue(self, task: _Task | _Ahead) -> None:
        self._queue.append(task)
        if len(self._queue) > self._free_threads and len(self._threads) < self._workers:
            name = f"download-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify()

    def cancel(self, fetch_id: int) -> None:
        with self._changed:
            task = self._tasks.get(fetch_id)
            if task is None:
                return
            self._cancel(task)
            if task in self._queue:
                # The next free thread tells its end.
                self._queue.remove(task)
                self._queue.appendleft(task)

    def connect(self, source: PieceSource, ticket: bytes) -> None:
        """See Transport."""
        address = source.address
        with self._changed:
            if self._closed or address in self._ahead or self._pool.has(address, encrypted=source.encrypted):
                return
            if time.monotonic() >= self._ahead_rest_s.get(address, 0.0):
                self._ahead[address] = None
                self._enqueue(_Ahead(source, ticket))

    def bitfield(
        self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float
    ) -> tuple[PieceLayout, int] | None:
        """See Transport. Raises PeerBusy, TicketInvalid or RemoteError."""
        body = ask(self._pool, source, bitfield_path(digest), ticket, timeout_s)
        return None if body is None else decode_bitfield(body)

    def hashes(self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float) -> bytes:
        """See Transport; wire.decode_hashes takes it apart. Raises PeerBusy, TicketInvalid or RemoteError."""
        body = ask(self._pool, source, hashes_path(digest), ticket, timeout_s)
        if body is None:
            raise RemoteError(f"peer {short_peer(source.peer)} holds nothing of blob {digest.short}")
        return body

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for task in self._tasks.values():
                self._cancel(task)
            self._queue = deque(task for task in self._queue if isinstance(task, _Task))
            for connection in self._ahead.values():
                if connection is not None:
                    connection.shut_down()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._pool.close()

    def _cancel(self, task: _Task) -> None:
        task.cancelled = True
        self._turns.notify_all()
        if task.connection is not None:
            task.connection.shut_down()

    # --- the threads -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._free_threads += 1
                self._changed.wait_for(lambda: self._queue or self._closed)
                self._free_threads -= 1
                if not self._queue:
                    return
                task = self._queue.popleft()
                buffer = self._buffers.pop() if self._buffers else memoryview(bytearray(self._buffer_bytes))
            if isinstance(task, _Ahead):
                self._open(task, buffer)
                self._buffers.append(buffer)
                continue
            outcome = self._carry_out(task, buffer)
            with self._changed:
                self._buffers.append(buffer)
                del self._tasks[task.fetch.fetch_id]
                self._turns.notify_all()
            try:
                task.done(outcome)
            except Exception:
                # The receiver's bug must not cost this thread.
                log.exception("outcome of fetch %d", task.fetch.fetch_id)

    def _carry_out(self, task: _Task, buffer: memoryview) -> FetchOutcome:
        task.started_s = time.monotonic()
        reason, message = "", ""
        try:
            self._fetch(task, buffer)
        except _Failed as failure:
            reason = failure.reason
        except ConnectionLost:
            reason = FetchReason.CONNECTION
        except AnswerLate:
            reason = FetchReason.TIMEOUT
        except PieceCorrupt:
            reason = FetchReason.CORRUPT
        except LocalError as error:
            reason, message = FetchReason.LOCAL, str(error)
        except RemoteError:
            reason = FetchReason.PROTOCOL
        except Exception:
            # Our own bug: told loudly, but whoever waits for the outcome must get one.
            log.exception("fetch of piece %d of %s", task.fetch.piece, task.fetch.blob.digest.short)
            reason, message = FetchReason.LOCAL, "internal error while fetching from a peer; see the log"
        if reason and task.cancelled:
            reason = FetchReason.CANCELLED
        if reason:
            peer = short_peer(task.fetch.source.peer)
            log.debug("piece %d of %s from %s: %s", task.fetch.piece, task.fetch.blob.digest.short, peer, reason)
        elapsed_s = time.monotonic() - task.started_s
        stored_bytes = task.received_bytes if task.fresh else 0
        discarded_bytes = task.received_bytes - stored_bytes
        waited_s = max(0.0, task.asked_s - task.heard_s)
        # A fetch may end before it asked.
        answered_s = max(0.0, task.started_s - task.asked_s) if task.asked_s else 0.0
        return FetchOutcome(
            task.fetch.fetch_id, reason, elapsed_s, stored_bytes, discarded_bytes, message, waited_s, answered_s
        )

    def _fetch(self, task: _Task, buffer: memoryview) -> None:
        address = task.fetch.source.address
        while True:
            connection = self._pool.take(address, encrypted=task.fetch.source.encrypted)
            keep = False
            try:
                self._attach(task, connection)
                if not connection.used:
                    connection.open(buffer)
                self._await_turn(task)
                keep = self._fetch_over(task, connection, buffer)
                return
            except ConnectionLost as lost:
                # A warm connection may have been closed by the other side while it was idle.
                if not (lost.early and connection.used and not task.cancelled):
                    raise
            except _Failed as failure:
                keep = failure.clean
                raise
            finally:
                # After this nobody can shut it down any more, so that another fetch may have it.
                self._detach(task)
                self._pool.give(connection, keep=keep and not task.cancelled)

    def _open(self, ahead: _Ahead, buffer: memoryview) -> None:
        source = ahead.source
        connection = self._pool.take(source.address, encrypted=source.encrypted)
        keep = connection.used
        with self._changed:
            self._ahead[source.address] = connection
            if self._closed:
                connection.shut_down()
        try:
            if not keep:
                connection.open(buffer)
                connection.introduce(source.peer, ahead.ticket, buffer)
                keep = True
        except (ConnectionLost, AnswerLate, RemoteError) as error:
            # Whoever needs it tries again, and tells.
            log.debug("no connection to %s: %s", source.address, error)
        except Exception:
            # Our own bug must not cost this thread.
            log.exception("connection to %s", source.address)
        with self._changed:
            del self._ahead[source.address]
            if not keep:
                self._ahead_rest_s[source.address] = time.monotonic() + _AHEAD_REST_S
        self._pool.give(connection, keep=keep)

    def _attach(self, task: _Task, connection: HttpConnection) -> None:
        with self._changed:
            if task.cancelled:
                raise _Failed(FetchReason.CANCELLED)
            task.connection = connection

    def _await_turn(self, task: _Task) -> None:
        """The connection stands; the request goes out when the fetch before it is nearly over, or has ended."""
        if not task.fetch.behind:
            return
        with self._turns:
            before = self._tasks.get(task.fetch.behind)
            if before is None or before.nearly_over:
                return
            self._turns.wait_for(
                lambda: task.cancelled or before.nearly_over or self._tasks.get(task.fetch.behind) is not before,
                self._slot_wait_s,
            )
            if task.cancelled:
                raise _Failed(FetchReason.CANCELLED)

    def _tell_nearly_over(self, task: _Task) -> None:
        with self._turns:
            task.nearly_over = True
            self._turns.notify_all()

    def _detach(self, task: _Task) -> None:
        with self._changed:
            task.connection = None

    def _fetch_over(self, task: _Task, connection: HttpConnection, buffer: memoryview) -> bool:
        """One request and its answer; True when the connection can be used again."""
        fetch = task.fetch
        path = pieces_path(fetch.blob.digest, fetch.piece, fetch.piece)
        task.asked_s = time.monotonic()
        hash_wanted = fetch.learn is not None and fetch.blob.hash_of(fetch.piece) is None
        connection.request(path, fetch.source.peer, fetch.ticket, ahead=fetch.ahead, hash_wanted=hash_wanted)
        answer, rest = connection.read_head(buffer, self._slot_wait_s)
        task.started_s = time.monotonic()
        if not fetch.ahead:
            self._lead.answered(task.started_s - task.asked_s)
        if answer.status != 200:
            clean = self._skip_refusal(connection, answer, rest, buffer)
            raise _Failed(_REASON_OF_STATUS.get(answer.status, FetchReason.PROTOCOL), clean=clean)
        length = fetch.blob.layout.length(fetch.piece)
        if answer.length_bytes != length or len(rest) > length:
            raise _Failed(FetchReason.PROTOCOL)
        if hash_wanted:
            _learn(fetch, answer)
        hashless = fetch.unproven and fetch.blob.hash_of(fetch.piece) is None
        writer = fetch.blob.writer(fetch.piece, from_origin=hashless, claim=fetch.claim)
        try:
            self._receive(task, connection, writer, rest, buffer)
            writer.finish()
            task.fresh = writer.fresh
            self._lead.received(length, time.monotonic() - task.started_s)
        finally:
            writer.abort()
        return answer.keep_alive

    def _skip_refusal(self, connection: HttpConnection, answer: Answer, rest: memoryview, buffer: memoryview) -> bool:
        """Read the one line that says why, so that the connection stays warm; False when it must be closed."""
        missing = answer.length_bytes - len(rest)
        if not answer.keep_alive or missing < 0 or answer.length_bytes > _REFUSAL_MAX_BYTES:
            return False
        give_up_s = time.monotonic() + _REFUSAL_WAIT_S
        while missing:
            missing -= connection.read_body(buffer[:missing], give_up_s)
        return True

    def _receive(
        self, task: _Task, connection: HttpConnection, writer: PieceWriter, rest: memoryview, buffer: memoryview
    ) -> None:
        give_up_s = task.started_s + task.fetch.deadline_s
        lead_bytes = self._lead.size_bytes(task.fetch.blob.layout.length(task.fetch.piece))
        # What came with the answer's head, a quarter of a small piece and more. The rest goes behind it: what fits into
        # the buffer is hashed and written at once.
        filled = count = len(rest)
        buffer[:filled] = rest
        while True:
            self._limiter.take(count)
            task.received_bytes += count
            remaining = writer.remaining_bytes - filled
            if not remaining or filled == len(buffer):
                writer.write(buffer[:filled])
                filled = 0
            if not remaining:
                return
            size = min(remaining, len(buffer) - filled)
            if remaining > lead_bytes:
                size = min(size, remaining - lead_bytes)
            elif not task.nearly_over:
                self._tell_nearly_over(task)
            if self._limiter.limited:
                size = min(size, self._limiter.chunk_bytes)
            count = connection.read_body(buffer[filled : filled + size], give_up_s)
            filled += count


def _learn(fetch: PieceFetch, answer: Answer) -> None:
    """Take the hash that came with the piece; it is what the piece is held to. Raises RemoteError, LocalError."""
    assert fetch.learn is not None
    if answer.hashes is not None:
        fetch.learn(answer.hashes)
    if not (fetch.unproven or fetch.claim) and fetch.blob.hash_of(fetch.piece) is None:
        raise _Failed(FetchReason.UNHASHED)
