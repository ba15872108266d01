"""Pieces by BitTorrent: what this node's shell and the supernode say, passed on to the torrents.

The module is imported when a supernode says that pieces travel by
BitTorrent, not before: it loads libtorrent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import PayloadCame, PieceArrived, TransportFailed
from peer.torrent.session import SessionLimits
from peer.torrent.swarms import TorrentSwarms
from peer.transport.delivery import PieceDelivery
from proto.wire.messages import TorrentOpened, TorrentPeers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peer.config import PeerConfig
    from peer.downloader.contract import Event
    from peer.store.base import BlobStore
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Message

# A supernode names a few peers a blob. Idle connections give way.
CONNECTIONS_MAX: Final = 200

logger = logging.getLogger(__name__)


class DownloaderEvents:
    """Implements peer.torrent.swarms.SwarmEvents: `post` brings the downloader an event, from any thread."""

    def __init__(self, post: Callable[[Event], None], received: Callable[[int], None]) -> None:
        self._post = post
        self._received = received

    def piece_held(self, digest: Digest, piece: int, size_bytes: int) -> None:
        """See SwarmEvents."""
        self._received(size_bytes)
        self._post(PieceArrived(digest, piece))

    def fetch_failed(self, digest: Digest, message: str) -> None:
        """See SwarmEvents."""
        self._post(TransportFailed(digest, message))

    def payload_moved(self, digest: Digest, received_bytes: int, sent_bytes: int) -> None:
        """See SwarmEvents."""
        if received_bytes:
            self._post(PayloadCame(digest))


class TorrentDelivery(PieceDelivery):
    """See PieceDelivery."""

    def __init__(self, swarms: TorrentSwarms) -> None:
        self._swarms = swarms
        # Of this session's nodes, HOST:PORT.
        self._addresses: dict[int, str] = {}

    @property
    def sent_bytes(self) -> int:
        """See PieceDelivery."""
        return self._swarms.sent_bytes

    def session_begins(self) -> int:
        """See PieceDelivery."""
        self._addresses.clear()
        return self._swarms.port

    def node_known(self, node: int, address: str) -> None:
        """See PieceDelivery."""
        self._addresses[node] = address

    def received(self, message: Message, swarms: Mapping[int, tuple[Digest, PieceLayout]]) -> bool:
        """See PieceDelivery."""
        if not isinstance(message, TorrentOpened | TorrentPeers):
            return False
        if message.swarm in swarms:
            digest, layout = swarms[message.swarm]
            if isinstance(message, TorrentPeers):
                known = [self._addresses[node] for node in message.nodes if node in self._addresses]
                self._swarms.connect(digest, known)
            elif not self._swarms.offer(digest, layout, message.metainfo):
                logger.warning("torrent_ignored digest=%s: its metainfo is not of this blob", digest.short)
        return True

    def blob_opened(self, digest: Digest) -> None:
        """See PieceDelivery."""
        self._swarms.fetch(digest)

    def blob_complete(self, digest: Digest) -> None:
        """See PieceDelivery."""
        self._swarms.finished(digest)

    def blob_left(self, digest: Digest) -> None:
        """See PieceDelivery."""
        self._swarms.leave(digest)

    def blob_voided(self, digest: Digest) -> None:
        """See PieceDelivery."""
        self._swarms.forget(digest)

    def reader_moved(self, digest: Digest, piece: int) -> None:
        """See PieceDelivery."""
        self._swarms.hurry(digest, piece)

    def give_way(self, digest: Digest) -> None:
        """See PieceDelivery."""
        self._swarms.give_way(digest)

    def sharing_ended(self) -> None:
        """See PieceDelivery."""
        self._swarms.leave_all()

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        """See PieceDelivery."""
        self._swarms.set_rates(upload_bytes_s, download_bytes_s)

    def close(self) -> None:
        """See PieceDelivery."""
        self._swarms.close()


def open_delivery(store: BlobStore, config: PeerConfig, events: DownloaderEvents) -> TorrentDelivery:
    """Listen for torrents. Raises ConfigError."""
    limits = SessionLimits(
        config.upload_slots, CONNECTIONS_MAX, config.upload_rate_bytes_s, config.download_rate_bytes_s
    )
    return TorrentDelivery(TorrentSwarms(store, config.torrent_listen, limits, events))
