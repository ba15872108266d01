"""Torrents for tests: metainfo of known content, and swarms on loopback whose reports are kept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peer.torrent.metainfo import BLOCK_BYTES, make_metainfo, piece_root
from peer.torrent.session import SessionLimits
from peer.torrent.swarms import SwarmEvents, TorrentSwarms
from proto.config.values import HostPort

if TYPE_CHECKING:
    from peer.store.base import BlobStore
    from proto.ids import Digest
    from tests.support.blobs import SomeBlob


@dataclass
class RecordedEvents(SwarmEvents):
    """Keeps what swarms report."""

    pieces: list[tuple[Digest, int, int]] = field(default_factory=list)
    troubles: list[tuple[Digest, str]] = field(default_factory=list)
    # (blob, payload received, payload sent)
    moved: list[tuple[Digest, int, int]] = field(default_factory=list)

    def piece_held(self, digest: Digest, piece: int, size_bytes: int) -> None:
        self.pieces.append((digest, piece, size_bytes))

    def fetch_failed(self, digest: Digest, message: str) -> None:
        self.troubles.append((digest, message))

    def payload_moved(self, digest: Digest, received_bytes: int, sent_bytes: int) -> None:
        self.moved.append((digest, received_bytes, sent_bytes))


def metainfo_of(blob: SomeBlob, *, secret: bytes = bytes(32)) -> bytes:
    """As the supernode makes it."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with tempfile.TemporaryFile() as file:
        file.write(blob.content)
        file.flush()
        roots = [piece_root(file.fileno(), blob.layout, piece, buffer) for piece in range(blob.layout.count)]
    return make_metainfo(blob.digest, blob.layout, roots, secret)


def torrent_swarms(
    store: BlobStore, events: RecordedEvents, *, upload_rate_bytes_s: int = 0, download_rate_bytes_s: int = 0
) -> TorrentSwarms:
    """On a free port of loopback."""
    limits = SessionLimits(8, 50, upload_rate_bytes_s, download_rate_bytes_s)
    return TorrentSwarms(store, HostPort("127.0.0.1", 0), limits, events)
