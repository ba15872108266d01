"""TorrentTransport: pieces by BitTorrent, behind the contract of peer.transport.base.

Between Layercast's own nodes libtorrent brings whole blobs by itself (peer.torrent.swarms): who was told of
a blob's torrent joins it, and no lease is needed. start() is for a node that goes on without its supernode: one piece,
from a holder it knows. It asks that holder over HTTP first, which is where tickets are checked; blobs without a torrent
come over HTTP altogether.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.torrent.blob import Want
from peer.transport.base import FetchOutcome
from proto.errors import LayercastError, LocalError, PeerBusy, RemoteError, TicketInvalid
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.torrent.swarms import TorrentSwarms
    from peer.transport.base import PieceFetch, PieceSource, RemoteBitfield, Transport
    from proto.ids import Digest, PeerName

_ASKERS: Final = 4
_ASK_TIMEOUT_S: Final = 5.0
# Deadlines are looked at this often.
_TICK_S: Final = 0.5

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Task:
    fetch: PieceFetch
    done: Callable[[FetchOutcome], None]
    started_s: float
    give_up_s: float
    # Handed to the swarms, which then tell its end.
    wanted: bool = False
    ended: bool = False
    cancelled: bool = False


class TorrentTransport:
    """See Transport. `http` brings what has no torrent, and everything until begin(); both are closed with this."""

    def __init__(self, http: Transport) -> None:
        self._swarms: TorrentSwarms | None = None
        self._http = http
        self._lock = threading.Lock()
        self._tasks: dict[int, _Task] = {}
        self._addresses: dict[PeerName, str] = {}
        self._askers = ThreadPoolExecutor(_ASKERS, thread_name_prefix="torrent-ask")
        self._closing = threading.Event()
        self._timer: threading.Thread | None = None

    def begin(self, swarms: TorrentSwarms) -> None:
        """From now on there are torrents. Called once."""
        self._swarms = swarms
        self._timer = threading.Thread(target=self._watch, args=(swarms,), name="torrent-deadlines", daemon=True)
        self._timer.start()

    def introduce(self, peer: PeerName, address: str) -> None:
        """Where this peer's torrents are, HOST:PORT."""
        with self._lock:
            self._addresses[peer] = address

    # --- peer.transport.base.Transport ---------------------------------------------------------------------------

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        """See Transport."""
        if self._swarms is None or not self._swarms.knows(fetch.blob.digest):
            self._http.start(fetch, done)
            return
        now = time.monotonic()
        task = _Task(fetch, done, now, now + fetch.deadline_s)
        with self._lock:
            assert fetch.fetch_id not in self._tasks
            self._tasks[fetch.fetch_id] = task
        self._askers.submit(self._ask, task)

    def cancel(self, fetch_id: int) -> None:
        """See Transport. A piece that is being stored already is stored."""
        with self._lock:
            task = self._tasks.get(fetch_id)
            if task is not None:
                task.cancelled = True
        if task is None:
            self._http.cancel(fetch_id)
        elif task.wanted and self._swarms is not None:
            self._swarms.unwant(task.fetch.blob.digest, fetch_id, FetchReason.CANCELLED)

    def connect(self, source: PieceSource) -> None:
        """See Transport."""
        self._http.connect(source)

    def bitfield(self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float) -> RemoteBitfield:
        """See Transport."""
        return self._http.bitfield(source, digest, ticket, timeout_s)

    def hashes(self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float) -> bytes:
        """See Transport."""
        return self._http.hashes(source, digest, ticket, timeout_s)

    def close(self) -> None:
        """See Transport."""
        self._closing.set()
        with self._lock:
            for task in self._tasks.values():
                task.cancelled = True
        if self._timer is not None:
            self._timer.join()
        # First: a question under way ends with its connection.
        self._http.close()
        self._askers.shutdown(wait=True)
        if self._swarms is not None:
            self._swarms.close()

    # --- one fetch -------------------------------------------------------------------------------------------------

    def _ask(self, task: _Task) -> None:
        """In an asker's thread: what the source says, then the swarm."""
        reason, message = FetchReason.LOCAL, "internal error while fetching from a peer; see the log"
        try:
            reason, message = self._question(task)
        except Exception:
            log.exception("fetch of piece %d of %s", task.fetch.piece, task.fetch.blob.digest.short)
        if reason:
            self._end(task, reason, message=message)
            return
        fetch = task.fetch
        with self._lock:
            address = self._addresses.get(fetch.source.peer, "")
            task.wanted = not task.cancelled
        if not task.wanted:
            self._end(task, FetchReason.CANCELLED)
            return
        task.give_up_s = time.monotonic() + fetch.deadline_s

        def done(reason: str, fresh: bool, message: str) -> None:
            self._end(task, reason, fresh=fresh, message=message)

        assert self._swarms is not None, "there were torrents when it began"
        self._swarms.want(fetch.blob.digest, Want(fetch.fetch_id, fetch.piece, done), address, fetch.deadline_s)

    def _question(self, task: _Task) -> tuple[str, str]:
        """(reason, message) why this source is none for the piece; both empty if it is one."""
        fetch = task.fetch
        if task.cancelled:
            return FetchReason.CANCELLED, ""
        try:
            if fetch.blob.hash_of(fetch.piece) is None:
                return FetchReason.LOCAL, f"piece {fetch.piece} of {fetch.blob.digest.short}: its hash is not known yet"
            answer = self._http.bitfield(fetch.source, fetch.blob.digest, fetch.ticket, _ASK_TIMEOUT_S)
        except TicketInvalid:
            return FetchReason.TICKET, ""
        except PeerBusy:
            return FetchReason.BUSY, ""
        except RemoteError:
            return FetchReason.CONNECTION, ""
        except LocalError as error:
            return FetchReason.LOCAL, str(error)
        except LayercastError:
            return FetchReason.PROTOCOL, ""
        if answer.size_bytes and answer.piece_size_bytes != fetch.blob.layout.piece_size_bytes:
            return FetchReason.PROTOCOL, ""
        return ("", "") if answer.held >> fetch.piece & 1 else (FetchReason.NOT_HELD, "")

    def _end(self, task: _Task, reason: str, *, fresh: bool = False, message: str = "") -> None:
        with self._lock:
            if task.ended:
                return
            task.ended = True
            del self._tasks[task.fetch.fetch_id]
        if reason and task.cancelled:
            reason, message = FetchReason.CANCELLED, ""
        stored_bytes = task.fetch.blob.layout.length(task.fetch.piece) if fresh else 0
        elapsed_s = time.monotonic() - task.started_s
        try:
            task.done(FetchOutcome(task.fetch.fetch_id, reason, elapsed_s, stored_bytes, message=message))
        except Exception:
            # The receiver's bug must not cost this thread.
            log.exception("outcome of fetch %d", task.fetch.fetch_id)

    def _watch(self, swarms: TorrentSwarms) -> None:
        while not self._closing.wait(_TICK_S):
            now = time.monotonic()
            with self._lock:
                late = [task for task in self._tasks.values() if task.wanted and now > task.give_up_s]
            for task in late:
                swarms.unwant(task.fetch.blob.digest, task.fetch.fetch_id, FetchReason.TIMEOUT)
