"""A node's torrents: what the supernode says is passed on to them, what they report goes to the downloader.

The module is imported when a supernode says that pieces travel by
BitTorrent, not before: it loads libtorrent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import PayloadCame, PieceArrived, TransportFailed
from peer.torrent.session import SessionLimits
from peer.torrent.swarms import SwarmEvents, TorrentSwarms
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


class TorrentDelivery(TorrentSwarms, SwarmEvents):
    """A node's torrents, which the supernode tells it of. Raises ConfigError when it cannot listen.

    `post` brings the downloader an event, `count` counts payload bytes that were stored; from any thread.
    """

    def __init__(
        self, store: BlobStore, config: PeerConfig, post: Callable[[Event], None], count: Callable[[int], None]
    ) -> None:
        self._post = post
        self._count = count
        # Of this session's nodes, HOST:PORT.
        self._addresses: dict[int, str] = {}
        rates = (config.upload_rate.now(), config.download_rate.now())
        limits = SessionLimits(config.upload_slots, CONNECTIONS_MAX, *rates)
        super().__init__(store, config.torrent_listen, limits, self)

    @property
    def brings_all(self) -> bool:
        """A torrent begins once the supernode has all of the blob."""
        return True

    # --- what the supernode says -------------------------------------------------------------------------------

    def session_begins(self) -> int:
        self._addresses.clear()
        return self.port

    def node_known(self, node: int, address: str) -> None:
        self._addresses[node] = address

    def received(self, message: Message, swarms: Mapping[int, tuple[Digest, PieceLayout]]) -> bool:
        if not isinstance(message, TorrentOpened | TorrentPeers):
            return False
        if message.swarm in swarms:
            digest, layout = swarms[message.swarm]
            if isinstance(message, TorrentPeers):
                self.connect(digest, [self._addresses[node] for node in message.nodes if node in self._addresses])
            elif not self.offer(digest, layout, message.metainfo):
                logger.warning("torrent_ignored digest=%s: its metainfo is not of this blob", digest.short)
        return True

    # --- what the torrents report, from a thread ---------------------------------------------------------------

    def piece_held(self, digest: Digest, piece: int, size_bytes: int) -> None:
        self._count(size_bytes)
        self._post(PieceArrived(digest, piece))

    def fetch_failed(self, digest: Digest, message: str) -> None:
        self._post(TransportFailed(digest, message))

    def payload_moved(self, digest: Digest, received_bytes: int, sent_bytes: int) -> None:
        if received_bytes:
            self._post(PayloadCame(digest))
