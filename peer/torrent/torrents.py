"""This node's torrents beside its downloader: whether there are any, and what is done with a blob's when it changes.

libtorrent is loaded and its session begun when a supernode says that pieces travel by BitTorrent, not before. Without
libtorrent, or without a port, the node says so once and pulls from origins; nothing else changes.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import PayloadCame, PieceArrived, TransportFailed
from proto.errors import ConfigError, LocalError
from proto.wire.messages import TORRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.config import PeerConfig
    from peer.metrics import Metrics
    from peer.node.driver import Driver
    from peer.node.live_blob import LiveBlob
    from peer.store.base import BlobHandle, BlobStore
    from peer.torrent.swarms import TorrentSwarms
    from peer.torrent.transport import TorrentTransport
    from proto.ids import Digest, PeerName
    from proto.pieces import PieceLayout

# A supernode names a few peers a blob. Idle connections give way.
CONNECTIONS_MAX: Final = 200
# A piece that a client waits for is asked for before others; when it is due decides only how soon a second peer is
# asked for it too.
HURRY_S: Final = 2.0
# libtorrent lets go of a file within milliseconds.
_GIVE_WAY_S: Final = 10.0

logger = logging.getLogger(__name__)


class Torrents:
    """Safe to call from any thread. `begin` makes the swarms, once; it may raise ImportError or ConfigError."""

    def __init__(
        self, transport: TorrentTransport | None = None, begin: Callable[[], TorrentSwarms] | None = None
    ) -> None:
        self._transport = transport
        self._begin = begin
        self._lock = threading.Lock()
        self._swarms: TorrentSwarms | None = None

    def port_for(self, transport: str) -> int:
        """The port to tell a supernode that uses this transport; 0 where there is none, or no need. Blocking."""
        with self._lock:
            if transport != TORRENT:
                if self._swarms is not None:
                    # From now on leases bring the pieces, and write to the same files.
                    self._swarms.leave_all(unfinished_only=True)
                return 0
            if self._swarms is None:
                self._swarms = self._make()
                if self._swarms is not None and self._transport is not None:
                    self._transport.begin(self._swarms)
            return self._swarms.port if self._swarms is not None else 0

    def _make(self) -> TorrentSwarms | None:
        try:
            return self._begin() if self._begin is not None else None
        except ImportError as error:
            reason = f"{error}; install the package libtorrent on this node"
        except ConfigError as error:
            reason = str(error)
        logger.error("torrent_unavailable: the supernode has pieces carried by BitTorrent: %s", reason)
        return None

    def counters(self) -> tuple[int, int]:
        """Payload bytes sent and received by BitTorrent."""
        swarms = self._swarms
        return (swarms.sent_bytes, swarms.received_bytes) if swarms is not None else (0, 0)

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        """See TorrentSwarms."""
        if self._swarms is not None:
            self._swarms.set_rates(upload_bytes_s, download_bytes_s)

    def introduce(self, peer: PeerName, address: str) -> None:
        """Where a peer's torrents are."""
        if self._transport is not None:
            self._transport.introduce(peer, address)

    def offer(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> bool:
        """See TorrentSwarms; False also where there are none."""
        if self._swarms is None:
            return False
        if self._swarms.offer(digest, layout, metainfo):
            return True
        logger.warning("torrent_ignored digest=%s: its metainfo is not of this blob", digest.short)
        return False

    def join(self, blob: LiveBlob) -> None:
        """Take part with what the store has of it; a blob that is open here and not complete is fetched."""
        if self._swarms is not None:
            self._swarms.join(blob.digest, whole=blob.handle is not None and not _is_done(blob.handle))

    def meet(self, digest: Digest, peers: list[str], first: range) -> None:
        """The supernode names peers, HOST:PORT, for this blob's torrent, and pieces to fetch before others."""
        if self._swarms is not None:
            self._swarms.connect(digest, peers, first)

    def closed(self, blob: LiveBlob) -> None:
        """The downloader lets go of it. One that is not complete was given up; a complete one is served on."""
        if self._swarms is not None and blob.handle is not None and not _is_done(blob.handle):
            self._swarms.leave(blob.digest)

    def hurry(self, digest: Digest, piece: int) -> None:
        """A client waits for this piece."""
        if self._swarms is not None:
            self._swarms.hurry(digest, piece, HURRY_S)

    def finished(self, digest: Digest) -> None:
        """See TorrentSwarms."""
        if self._swarms is not None:
            self._swarms.finished(digest)

    def leave(self, digest: Digest) -> None:
        """See TorrentSwarms; without waiting."""
        if self._swarms is not None:
            self._swarms.leave(digest)

    def forget(self, digest: Digest) -> None:
        """The blob was voided."""
        if self._swarms is not None:
            self._swarms.forget(digest)

    def leave_all(self) -> None:
        """Sharing was switched off."""
        if self._swarms is not None:
            self._swarms.leave_all(unfinished_only=False)

    def give_way(self, digest: Digest) -> None:
        """Blocking: somebody else is about to write to the blob's file. Raises LocalError."""
        if self._swarms is not None and not self._swarms.leave(digest).wait(_GIVE_WAY_S):
            raise LocalError(f"blob {digest.short}: libtorrent does not let go of its file; restart this node")


def _is_done(handle: BlobHandle) -> bool:
    return handle.complete or handle.matched


def begin_swarms(store: BlobStore, config: PeerConfig, driver: Driver, metrics: Metrics) -> TorrentSwarms:
    """This node's torrents, which tell its downloader. Raises ImportError without libtorrent, ConfigError."""
    # Loaded here alone: a cluster that uses leases needs no libtorrent.
    from peer.torrent.swarms import TorrentSwarms

    def arrived(digest: Digest, piece: int, size_bytes: int) -> None:
        metrics.received("peer", size_bytes)
        driver.post_threadsafe(PieceArrived(digest, piece))

    def moved(digest: Digest, received_bytes: int, _sent_bytes: int) -> None:
        if received_bytes:
            driver.post_threadsafe(PayloadCame(digest))

    return TorrentSwarms(
        store,
        config.torrent_listen,
        slots=config.upload_slots,
        connections_max=CONNECTIONS_MAX,
        upload_rate_bytes_s=config.upload_rate_bytes_s,
        download_rate_bytes_s=config.download_rate_bytes_s,
        on_piece=arrived,
        on_trouble=lambda digest, message: driver.post_threadsafe(TransportFailed(digest, message)),
        on_moved=moved,
    )
