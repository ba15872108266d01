"""Blobs as torrents: joined, fed into the store, served to others, and left. One thread owns libtorrent's handles.

libtorrent writes into the store's own file. A piece that it has verified is flushed, checked once more against its
BLAKE3 hash and marked held (BlobHandle.adopt); only then is anybody told. While a blob that is not whole is joined,
nobody else may write to its file: leave() it first (peer.torrent.teardown waits for the file). Which blobs,
and whom to connect to, is others' business.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import select
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import libtorrent

from peer.torrent.bans import Suspects
from peer.torrent.blob import JoinedBlob, resolved
from peer.torrent.intake import PieceIntake
from peer.torrent.metainfo_cache import ToldBook
from peer.torrent.session import TorrentSession, payload_bytes
from peer.torrent.teardown import Leaving, let_go
from proto.config.values import HostPort
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.store.base import BlobHandle, BlobStore
    from peer.torrent.blob import Want
    from peer.torrent.metainfo_cache import ToldBlob
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# Complete blobs offered to others at a time; each has an open file. The longest unused goes first.
_SEEDED_MAX: Final = 512
_STATS_S: Final = 1.0
_IDLE_S: Final = 0.5

log = logging.getLogger(__name__)


class TorrentSwarms:
    """Begins to listen at once; close() ends it. Raises ConfigError when it cannot listen.

    `on_piece(digest, piece, size_bytes)` tells of a piece that is held now, of a blob that was joined whole;
    `on_trouble(digest, message)` that nothing more comes of such a blob and it was left; `on_moved(digest,
    received_bytes, sent_bytes)` that so much payload went over the wire for a blob, about once a second while any does.
    All from a thread.
    """

    def __init__(
        self,
        store: BlobStore,
        listen: HostPort,
        *,
        slots: int,
        connections_max: int,
        upload_rate_bytes_s: int,
        download_rate_bytes_s: int,
        on_piece: Callable[[Digest, int, int], None],
        on_trouble: Callable[[Digest, str], None],
        on_moved: Callable[[Digest, int, int], None],
    ) -> None:
        self._store = store
        self._on_trouble = on_trouble
        self._on_moved = on_moved
        self._wake_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._session = TorrentSession(
                listen,
                slots=slots,
                connections_max=connections_max,
                upload_rate_bytes_s=upload_rate_bytes_s,
                download_rate_bytes_s=download_rate_bytes_s,
                alert_fd=self._wake_write,
            )
        except BaseException:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise
        self.port: Final = self._session.port
        # Payload so far, libtorrent's own count.
        self.sent_bytes = self.received_bytes = 0
        self._told = ToldBook()
        self._commands: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._intake = PieceIntake(self._do, on_piece, self._trouble)
        # Longest unused first.
        self._torrents: OrderedDict[Digest, JoinedBlob] = OrderedDict()
        self._leaving = Leaving(self._session)
        self._of_handle: dict[libtorrent.torrent_handle, JoinedBlob] = {}
        self._stats_s = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="torrent", daemon=True)
        self._thread.start()

    # --- from any thread ---------------------------------------------------------------------------------------

    def offer(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> bool:
        """Remember a blob's metainfo; False (and nothing remembered) if it is not of this blob and cut."""
        return self._told.offer(digest, layout, metainfo)

    def knows(self, digest: Digest) -> bool:
        """Whether its metainfo is here."""
        return self._told.of(digest) is not None

    def forget(self, digest: Digest) -> None:
        """Leave it, and forget its metainfo: the blob was something else."""
        self._told.forget(digest)
        self.leave(digest)

    def join(self, digest: Digest, *, whole: bool) -> None:
        """Take part with what the store holds; `whole`: and fetch the rest. Nothing where one of the two is missing."""
        self._do(lambda: self._join(digest, whole))

    def connect(self, digest: Digest, addresses: Iterable[str], first: range = range(0)) -> None:
        """Others (HOST:PORT) that take part; `first`: pieces to fetch before others."""
        targets = list(addresses)
        self._told.add_peers(digest, targets, first)
        self._do(lambda: self._connect(digest, targets, first))

    def hurry(self, digest: Digest, piece: int, deadline_s: float) -> None:
        """A client waits for this piece of a blob that is joined whole."""
        self._do(lambda: self._hurry(digest, piece, deadline_s))

    def want(self, digest: Digest, want: Want, address: str, deadline_s: float) -> None:
        """Fetch one piece, from this peer or any other. The blob must be in the store."""
        self._do(lambda: self._want(digest, want, address, deadline_s))

    def unwant(self, digest: Digest, number: int, reason: str) -> None:
        """Nobody waits for it any more; it ends with this reason, unless it is being stored already."""
        self._do(lambda: self._unwant(digest, number, reason))

    def finished(self, digest: Digest) -> None:
        """The blob's digest passed: serve it on without a pin in the store."""
        self._do(lambda: self._finished(digest))

    def leave(self, digest: Digest) -> threading.Event:
        """Take part no more. The event is set when libtorrent has let go of the file."""
        gone = threading.Event()
        self._do(lambda: self._leave_and_tell(digest, gone))
        return gone

    def leave_all(self, *, unfinished_only: bool) -> None:
        """Leave every blob, or every one that is not complete."""
        self._do(lambda: self._leave_all(unfinished_only))

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        """Change the limits, 0 for none."""
        self._session.set_rates(upload_bytes_s, download_bytes_s)

    def close(self) -> None:
        """Leave everything and join the threads. Idempotent; calls that come later do nothing."""
        if self._closed:
            return
        self._do(self._stop)
        self._thread.join()
        self._intake.close()
        # Before any descriptor, by whose numbers libtorrent knows the files.
        self._session.close()
        for torrent in [*self._torrents.values(), *self._leaving]:
            let_go(torrent, close=True)
        with self._wake_lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1

    def _do(self, command: Callable[[], object]) -> None:
        self._commands.put(command)
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it is awake
            if self._wake_write >= 0:
                os.write(self._wake_write, b"\0")

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            select.select([self._wake_read], [], [], self._intake.next_due_s(_IDLE_S))
            try:
                while len(os.read(self._wake_read, 4096)) == 4096:
                    pass
            except BlockingIOError:
                pass
            while not self._commands.empty():
                self._guard(self._commands.get())
            for alert in self._session.alerts():
                self._guard(functools.partial(self._heard, alert))
            self._guard(self._look_around)

    def _guard(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception:
            # Our own bug: told loudly, but the other blobs keep this thread.
            log.exception("torrent_failed")

    def _look_around(self) -> None:
        self._intake.look_again()
        now = time.monotonic()
        for torrent in self._leaving.due(now):
            self._left(torrent)
        if now - self._stats_s >= _STATS_S:
            self._stats_s = now
            self._session.ask_counters()
            for torrent in [each for each in self._torrents.values() if each.suspects.is_stuck(now)]:
                self._forgive(torrent, now)

    def _stop(self) -> None:
        self._closed = True
        for torrent in self._torrents.values():
            torrent.end_wants(FetchReason.CANCELLED, "")

    # --- joining -----------------------------------------------------------------------------------------------

    def _join(self, digest: Digest, whole: bool, suspects: Suspects | None = None) -> JoinedBlob | None:
        leaving = self._leaving.of(digest)
        if leaving is not None:
            leaving.again = leaving.again or whole
            return None
        torrent = self._torrents.get(digest)
        if torrent is not None:
            self._torrents.move_to_end(digest)
            if whole and not torrent.whole and torrent.blob is not None:
                # Anew: the store may hold by now what libtorrent would fetch, and write over.
                self._leave(digest)
                torrent.again = True
                return None
            return torrent
        told = self._told.of(digest)
        blob = self._store.get(digest, used=False) if told is not None else None
        if told is None or blob is None:
            return None
        if blob.layout != told.layout:
            blob.close()
            return None
        torrent = self._begin(blob, told, whole, suspects or Suspects(time.monotonic()))
        self._connect(digest, torrent.suspects.leave_out(told.peers), told.first)
        return torrent

    def _begin(self, blob: BlobHandle, told: ToldBlob, whole: bool, suspects: Suspects) -> JoinedBlob:
        held = blob.held
        complete = blob.complete or blob.matched
        descriptor = os.dup(blob.fileno())
        try:
            mask = [bool(held >> piece & 1) for piece in range(told.layout.count)]
            handle = self._session.add(told.metainfo, descriptor, mask, all_pieces=whole or complete)
        except BaseException:
            os.close(descriptor)
            blob.close()
            raise
        torrent = JoinedBlob(blob.digest, told.layout, handle, descriptor, blob, whole, suspects)
        self._torrents[blob.digest] = self._of_handle[handle] = torrent
        log.debug("torrent_joined digest=%s pieces=%d whole=%s", blob.digest.short, held.bit_count(), whole)
        if complete:
            self._finished(blob.digest)
        return torrent

    def _finished(self, digest: Digest) -> None:
        torrent = self._torrents.get(digest)
        if torrent is None or torrent.blob is None:
            return
        blob, torrent.blob = torrent.blob, None
        blob.close()
        seeded = [other for other in self._torrents.values() if other.blob is None]
        for other in seeded[:-_SEEDED_MAX]:
            self._leave(other.digest)

    def _connect(self, digest: Digest, addresses: list[str], first: range) -> None:
        torrent = self._torrents.get(digest)
        if torrent is None:
            return
        torrent.prefer(first)
        for text in addresses:
            if not torrent.connect(text):
                self._intake.threads.submit(self._resolve, digest, text)

    def _resolve(self, digest: Digest, text: str) -> None:
        """In another thread: an address that is a name."""
        if address := resolved(text):
            self.connect(digest, [address])

    def _forgive(self, torrent: JoinedBlob, now: float) -> None:
        """Nothing comes any more, of a blob some of whose peers were shut out."""
        if torrent.whole and torrent.blob is not None and not torrent.meet_suspect(now):
            self._leave(torrent.digest)
            torrent.again = True

    def _hurry(self, digest: Digest, piece: int, deadline_s: float) -> None:
        torrent = self._torrents.get(digest)
        if torrent is not None and torrent.whole and torrent.blob is not None and not torrent.blob.held >> piece & 1:
            torrent.handle.set_piece_deadline(piece, int(deadline_s * 1000))

    # --- single pieces -----------------------------------------------------------------------------------------

    def _want(self, digest: Digest, want: Want, address: str, deadline_s: float) -> None:
        torrent = self._join(digest, False)
        if torrent is None:
            want.done(FetchReason.CANCELLED if self._leaving.of(digest) else FetchReason.NOT_HELD, False, "")
            return
        if torrent.blob is None or torrent.blob.held >> want.piece & 1:
            want.done("", False, "")
            return
        torrent.wants.append(want)
        if address:
            self._connect(digest, [address], range(0))
        if want.piece in torrent.verified:
            self._intake.adopt(torrent, want.piece)
            return
        torrent.handle.piece_priority(want.piece, 7)
        torrent.handle.set_piece_deadline(want.piece, int(deadline_s * 1000))

    def _unwant(self, digest: Digest, number: int, reason: str) -> None:
        torrent = self._torrents.get(digest)
        want = next((each for each in torrent.wants if each.number == number), None) if torrent is not None else None
        if torrent is None or want is None or want.piece in torrent.adopting:
            return
        torrent.wants.remove(want)
        if not torrent.whole and not any(each.piece == want.piece for each in torrent.wants):
            torrent.handle.reset_piece_deadline(want.piece)
            torrent.handle.piece_priority(want.piece, 0)
        want.done(reason, False, "")

    # --- alerts --------------------------------------------------------------------------------------------------

    def _heard(self, alert: libtorrent.alert) -> None:
        if isinstance(alert, libtorrent.session_stats_alert):
            self.sent_bytes, self.received_bytes = payload_bytes(alert)
            return
        if isinstance(alert, libtorrent.state_update_alert):
            self._heard_counters(alert)
            return
        torrent = self._of_handle.get(alert.handle) if isinstance(alert, libtorrent.torrent_alert) else None
        if torrent is None:
            return
        if isinstance(alert, libtorrent.piece_finished_alert):
            self._intake.verified(torrent, int(alert.piece_index))
        elif isinstance(alert, libtorrent.cache_flushed_alert):
            self._intake.flushed(torrent)
        elif isinstance(alert, libtorrent.torrent_paused_alert):
            torrent.paused = True
        elif isinstance(alert, libtorrent.peer_ban_alert):
            torrent.suspects.shut_out(str(HostPort(*alert.endpoint)))
        elif isinstance(alert, libtorrent.file_error_alert | libtorrent.torrent_error_alert):
            self._trouble(torrent, f"blob {torrent.digest.short}: {alert.message()}")

    def _heard_counters(self, alert: libtorrent.state_update_alert) -> None:
        for status in alert.status:
            torrent = self._of_handle.get(status.handle)
            if torrent is not None and not torrent.left_s:
                torrent.tell_moved(status, self._on_moved, time.monotonic())

    def _trouble(self, torrent: JoinedBlob, message: str) -> None:
        if torrent.left_s:
            return
        log.error("torrent_trouble %s", message)
        torrent.end_wants(FetchReason.LOCAL, message)
        self._leave(torrent.digest)
        if torrent.whole:
            self._on_trouble(torrent.digest, message)

    # --- leaving -----------------------------------------------------------------------------------------------

    def _leave_and_tell(self, digest: Digest, gone: threading.Event) -> None:
        self._leave(digest)
        leaving = self._leaving.of(digest)
        if leaving is None:
            gone.set()
        else:
            leaving.again = None
            leaving.waiters.append(gone)

    def _leave(self, digest: Digest) -> None:
        torrent = self._torrents.pop(digest, None)
        if torrent is None:
            return
        torrent.left_s = time.monotonic()
        self._intake.forget(torrent)
        torrent.end_wants(FetchReason.CANCELLED, "")
        self._leaving.begin(torrent)

    def _leave_all(self, unfinished_only: bool) -> None:
        for torrent in list(self._torrents.values()):
            if torrent.blob is not None or not unfinished_only:
                self._leave(torrent.digest)

    def _left(self, torrent: JoinedBlob) -> None:
        self._of_handle.pop(torrent.handle, None)
        free = self._leaving.end(torrent)
        if torrent.again is not None and free:
            suspects = torrent.suspects.anew(time.monotonic(), self._told.peers(torrent.digest))
            self._join(torrent.digest, torrent.again, suspects)
