"""Blobs as torrents: joined, fetched into the store, served to others, and left. One thread owns libtorrent's handles.

A blob is joined when its torrent is known, the store has it, and nobody else writes to its file: missing pieces are
fetched if it was asked for, what is held is served in any case. libtorrent writes blocks into the store's own file
before it can check them, so it has to be the only writer; give_way() ends its part before another one begins. A piece
that it has verified is checked once more and marked held (BlobHandle.adopt) before anybody is told of it.

Of a wrong piece of which several peers sent blocks libtorrent does not know whose was wrong: it trusts all of them
less, and after four such pieces bans them all. When nothing comes any more after that, the blob is joined afresh,
which forgets the bans, and its peers are asked one at a time: so only who sends wrong blocks is banned again.

Which blobs, and whom to connect to, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import libtorrent

from peer.torrent.adoption import PieceAdoption
from peer.torrent.joined_blob import JoinedBlob, KnownTorrent
from peer.torrent.session import TorrentSession, is_torrent_of, sent_payload_bytes
from peer.transport.delivery import PieceDelivery
from proto.bounded_dict import BoundedDict
from proto.config.values import HostPort, parse_host_port
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.store.base import BlobStore
    from peer.torrent.session import SessionLimits
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# Metainfo is 32 bytes a piece; these are a node's blobs of some weeks. The one told longest ago is dropped first.
_KNOWN_MAX: Final = 4096
# Blobs that are served and not fetched, at a time; each has an open file. The longest unused goes first.
_SERVED_MAX: Final = 512
_EACH_SECOND_S: Final = 1.0
# A piece that a client waits for is asked for before others; when it is due decides only how soon a second peer is
# asked for it too.
_READER_DEADLINE_MS: Final = 2000
# libtorrent lets go of a file within milliseconds. After that the file is taken to be free, and the operator is told.
_LEAVE_MAX_S: Final = 5.0
_GIVE_WAY_MAX_S: Final = 10.0

log = logging.getLogger(__name__)


class SwarmEvents:
    """What swarms report, from a thread. As it stands here it is heard by nobody."""

    def piece_held(self, digest: Digest, piece: int, size_bytes: int) -> None:
        """A piece of a fetched blob is in the store now."""

    def fetch_failed(self, digest: Digest, message: str) -> None:
        """Nothing more comes of a fetched blob, which was left; the message is the operator's."""

    def payload_moved(self, digest: Digest, received_bytes: int, sent_bytes: int) -> None:
        """So much payload went over the wire, wanted or not. About once a second while any does."""


class TorrentSwarms(PieceDelivery):
    """Listens at once. Safe to use from any thread. Raises ConfigError when it cannot listen."""

    def __init__(self, store: BlobStore, listen: HostPort, limits: SessionLimits, events: SwarmEvents) -> None:
        self._store = store
        self._events = events
        self._loop = asyncio.SelectorEventLoop()
        # libtorrent writes a byte when it has alerts.
        self._alerts, self._alerts_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._session = TorrentSession(listen, limits, self._alerts_end)
        except BaseException:
            self._close_loop()
            raise
        self.port: Final = self._session.port
        # libtorrent's count.
        self._sent_bytes = 0
        # Torrents that the supernode named, kept until their blobs are joined.
        self._known: BoundedDict[Digest, KnownTorrent] = BoundedDict(_KNOWN_MAX)
        self._adoption = PieceAdoption(self._do, self._piece_held, self._failed)
        # Blobs whose missing pieces are to be fetched; those of them that wait for another writer's end.
        self._fetched: set[Digest] = set()
        self._waiting: set[Digest] = set()
        # Longest unused first.
        self._torrents: OrderedDict[Digest, JoinedBlob] = OrderedDict()
        # Until libtorrent has let go of their files.
        self._leaving: dict[Digest, JoinedBlob] = {}
        self._of_handle: dict[libtorrent.torrent_handle, JoinedBlob] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="torrent", daemon=True)
        self._thread.start()

    # --- from any thread ---------------------------------------------------------------------------------------

    def offer(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> bool:
        """A blob's torrent, to be joined when it can be. False, and nothing is done, if it is not of this blob."""
        if not is_torrent_of(metainfo, digest, layout):
            return False
        self._do(self._offered, digest, layout, metainfo)
        return True

    def connect(self, digest: Digest, addresses: Iterable[str]) -> None:
        """Others (HOST:PORT) that take part."""
        targets = list(addresses)
        self._do(self._met, digest, targets)

    # --- the hooks of peer.transport.delivery, from any thread -------------------------------------------------

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes

    def blob_opened(self, digest: Digest) -> None:
        self._do(self._fetch, digest)

    def blob_complete(self, digest: Digest) -> None:
        """See PieceDelivery: it is served on, without a pin in the store."""
        self._do(self._finished, digest)

    def blob_left(self, digest: Digest) -> None:
        self._do(self._end, digest)

    def blob_voided(self, digest: Digest) -> None:
        self._do(self._known.pop, digest, None)
        self.blob_left(digest)

    def reader_moved(self, digest: Digest, piece: int) -> None:
        self._do(self._hurry, digest, piece)

    def sharing_ended(self) -> None:
        self._do(self._end_all)

    def give_way(self, digest: Digest) -> None:
        """See PieceDelivery. A blob that is fetched is joined again when nobody writes to it any more."""
        free = threading.Event()
        if self._closed:
            return
        self._do(self._give_way, digest, free)
        if not free.wait(_GIVE_WAY_MAX_S):
            raise LocalError(f"blob {digest.short}: libtorrent does not let go of its file; restart this node")

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        self._session.set_rates(upload_bytes_s, download_bytes_s)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._adoption.close()
        # Somebody may still wait for a file.
        self._loop.run_until_complete(asyncio.sleep(0))
        # Before any descriptor, by whose numbers libtorrent knows the files.
        self._session.close()
        for torrent in [*self._torrents.values(), *self._leaving.values()]:
            _let_go(torrent, close=True)
        self._close_loop()

    def _close_loop(self) -> None:
        self._loop.close()
        os.close(self._alerts)
        os.close(self._alerts_end)

    # --- the thread --------------------------------------------------------------------------------------------

    def _do(self, step: Callable[..., object], *arguments: object) -> None:
        """From any thread: have this one do it; nothing after close()."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._guard, step, *arguments)

    def _run(self) -> None:
        self._loop.add_reader(self._alerts, self._hear)
        self._loop.call_soon(self._guard, self._each_second)
        self._loop.run_forever()

    def _guard(self, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
            self._let_go_of_files()
        except Exception:
            # Our own bug: told loudly, but the other blobs keep this thread.
            log.exception("torrent_failed")

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._alerts, 4096)) == 4096:
                pass
        for alert in self._session.alerts():
            self._guard(self._heard, alert)

    def _each_second(self) -> None:
        self._loop.call_later(_EACH_SECOND_S, self._guard, self._each_second)
        self._session.ask_counters()
        for digest in list(self._waiting):
            self._join(digest)
        for torrent in list(self._torrents.values()):
            if torrent.halted(time.monotonic()):
                self._ask_another(torrent)

    def _let_go_of_files(self) -> None:
        for torrent in list(self._leaving.values()):
            if not torrent.adopting and (torrent.paused or time.monotonic() - torrent.left_s > _LEAVE_MAX_S):
                self._left(torrent)

    # --- joining -----------------------------------------------------------------------------------------------

    def _offered(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> None:
        known = self._known.get(digest)
        self._known[digest] = KnownTorrent(layout, metainfo, known.peers if known is not None else [])
        self._join(digest)

    def _met(self, digest: Digest, addresses: list[str]) -> None:
        if digest in self._known:
            self._known[digest].add_peers(addresses)
            if self._known[digest].alone:
                return  # their turn comes
        self._connect(digest, addresses)

    def _join(self, digest: Digest) -> None:
        leaving, torrent = self._leaving.get(digest), self._torrents.get(digest)
        if leaving is not None:
            leaving.again = True
        elif torrent is None:
            self._join_anew(digest)
        elif digest in self._fetched and torrent.pin is None and not torrent.complete:
            # It was served alone. The store may hold by now what libtorrent would fetch, and write over.
            self._leave(torrent, again=True)
        else:
            self._torrents.move_to_end(digest)

    def _join_anew(self, digest: Digest) -> None:
        known = self._known.get(digest)
        blob = self._store.get(digest, used=False) if known is not None else None
        if known is None or blob is None:
            return
        complete = blob.complete or blob.matched
        if complete:
            self._fetched.discard(digest)
        elif blob.being_written and digest in self._fetched:
            self._waiting.add(digest)
        if blob.layout != known.layout or (blob.being_written and not complete):
            blob.close()
            return
        held = [bool(blob.held >> piece & 1) for piece in range(known.layout.count)]
        fetched = digest in self._fetched and not complete
        descriptor = -1
        try:
            descriptor = os.dup(blob.fileno())
            handle = self._session.add(known.metainfo, descriptor, held, all_pieces=fetched or complete)
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            blob.close()
            raise
        torrent = JoinedBlob(digest, known.layout, handle, descriptor, blob, complete, doubted=bool(known.alone))
        self._torrents[digest] = self._of_handle[handle] = torrent
        self._waiting.discard(digest)
        if not fetched:
            self._serve(torrent)
        log.debug("torrent_joined digest=%s pieces=%d fetched=%s", digest.short, sum(held), fetched)
        self._connect(digest, known.asked)

    def _ask_another(self, torrent: JoinedBlob) -> None:
        known = self._known.get(torrent.digest)
        if known is not None:
            address = known.ask_next_alone()
            log.warning("torrent_doubted digest=%s: wrong blocks came; asks %s", torrent.digest.short, address or "all")
            self._leave(torrent, again=True)

    def _fetch(self, digest: Digest) -> None:
        self._fetched.add(digest)
        self._join(digest)

    def _finished(self, digest: Digest) -> None:
        self._fetch_no_more(digest)
        torrent = self._torrents.get(digest)
        if torrent is None:
            self._join(digest)
        else:
            torrent.complete = True
            self._serve(torrent)

    def _fetch_no_more(self, digest: Digest) -> None:
        self._fetched.discard(digest)
        self._waiting.discard(digest)
        if digest in self._known:
            self._known[digest].alone.clear()

    def _serve(self, torrent: JoinedBlob) -> None:
        """Nothing more is fetched of it."""
        torrent.unpin()
        served = [each for each in self._torrents.values() if each.pin is None]
        for each in served[:-_SERVED_MAX]:
            self._leave(each)

    def _connect(self, digest: Digest, addresses: Iterable[str]) -> None:
        torrent = self._torrents.get(digest)
        for address in addresses:
            if torrent is not None and not torrent.connect(address):
                threading.Thread(target=self._resolve, args=(digest, address), daemon=True).start()

    def _resolve(self, digest: Digest, address: str) -> None:
        """In a thread of its own: an address that is a name."""
        try:
            named = parse_host_port(address)
            found = socket.getaddrinfo(named.host, named.port, type=socket.SOCK_STREAM)
        except (ValueError, OSError) as error:
            log.warning("torrent_peer_ignored %r: %s", address[:80], error)
        else:
            self._do(self._connect, digest, [str(HostPort(str(found[0][4][0]), named.port))])

    def _hurry(self, digest: Digest, piece: int) -> None:
        torrent = self._torrents.get(digest)
        if torrent is not None and torrent.lacks(piece):
            torrent.handle.set_piece_deadline(piece, _READER_DEADLINE_MS)

    # --- alerts, and what becomes of pieces ----------------------------------------------------------------------

    def _heard(self, alert: libtorrent.alert) -> None:
        if isinstance(alert, libtorrent.session_stats_alert):
            self._sent_bytes = sent_payload_bytes(alert)
            return
        if isinstance(alert, libtorrent.state_update_alert):
            self._heard_counters(alert)
            return
        torrent = self._of_handle.get(alert.handle) if isinstance(alert, libtorrent.torrent_alert) else None
        if torrent is None:
            return
        if isinstance(alert, libtorrent.piece_finished_alert):
            self._adoption.verified(torrent, int(alert.piece_index))
        elif isinstance(alert, libtorrent.cache_flushed_alert):
            self._adoption.flushed(torrent)
        elif isinstance(alert, libtorrent.torrent_paused_alert):
            torrent.paused = True
        elif isinstance(alert, libtorrent.peer_ban_alert):
            torrent.doubted = True
        elif isinstance(alert, libtorrent.file_error_alert | libtorrent.torrent_error_alert):
            self._failed(torrent, f"blob {torrent.digest.short}: {alert.message()}")

    def _heard_counters(self, alert: libtorrent.state_update_alert) -> None:
        for status in alert.status:
            torrent = self._of_handle.get(status.handle)
            if torrent is None or torrent.left_s:
                continue
            received_bytes, sent_bytes = torrent.moved_since(status)
            known = self._known.get(torrent.digest)
            if known is not None and known.alone:
                received_bytes = 0  # it may be wrong each time: pieces alone are progress
            if received_bytes > 0 or sent_bytes > 0:
                self._events.payload_moved(torrent.digest, received_bytes, sent_bytes)

    def _piece_held(self, torrent: JoinedBlob, piece: int) -> None:
        self._events.piece_held(torrent.digest, piece, torrent.layout.length(piece))

    def _failed(self, torrent: JoinedBlob, message: str) -> None:
        if torrent.left_s:
            return
        log.error("torrent_trouble %s", message)
        fetched = torrent.pin is not None
        self._end(torrent.digest)
        if fetched:
            self._events.fetch_failed(torrent.digest, message)

    # --- leaving -----------------------------------------------------------------------------------------------

    def _end(self, digest: Digest) -> None:
        """Leave it for good."""
        self._fetch_no_more(digest)
        if digest in self._torrents:
            self._leave(self._torrents[digest])
        elif digest in self._leaving:
            self._leaving[digest].again = False

    def _end_all(self) -> None:
        for digest in [*self._torrents, *self._fetched]:
            self._end(digest)

    def _give_way(self, digest: Digest, free: threading.Event) -> None:
        if digest in self._fetched:
            self._waiting.add(digest)
        if digest in self._torrents:
            self._leave(self._torrents[digest])
        leaving = self._leaving.get(digest)
        if leaving is None:
            free.set()
        else:
            leaving.again = False
            leaving.waiters.append(free)

    def _leave(self, torrent: JoinedBlob, *, again: bool = False) -> None:
        """Ask libtorrent to let go: its peers go, all is written, it closes the file and says that it paused."""
        del self._torrents[torrent.digest]
        self._leaving[torrent.digest] = torrent
        torrent.left_s, torrent.again = time.monotonic(), again
        torrent.handle.pause()

    def _left(self, torrent: JoinedBlob) -> None:
        """libtorrent let go of the file, or did not within the time it has."""
        del self._leaving[torrent.digest], self._of_handle[torrent.handle]
        self._session.remove(torrent.handle)
        if not torrent.paused:
            # Its descriptor stays open: libtorrent knows the file by that number.
            log.error("torrent_not_left digest=%s: libtorrent did not let go of its file", torrent.digest.short)
        _let_go(torrent, close=torrent.paused)
        if torrent.again and torrent.paused:
            self._join(torrent.digest)


def _let_go(torrent: JoinedBlob, *, close: bool) -> None:
    """Give back its pin and, with `close`, its descriptor; who waits for the file has it."""
    if close:
        os.close(torrent.descriptor)
    torrent.unpin()
    for waiter in torrent.waiters:
        waiter.set()
