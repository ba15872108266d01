"""The BitTorrent transport against the suite that every transport must pass: two libtorrent sessions, real stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from peer.torrent.transport import TorrentTransport
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from proto.ids import peer_name
from proto.wire.tickets import Identity
from tests.conformance.transport_suite import TransportSuite, Wire
from tests.support.torrents import Told, metainfo_of, torrent_swarms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from peer.torrent.swarms import TorrentSwarms
    from proto.ids import Digest
    from tests.support.blobs import SomeBlob


@dataclass
class TorrentUploader:
    """The port where tickets are checked, and the one where the pieces are."""

    http: UploadServer
    swarms: TorrentSwarms
    closed: bool = False

    @property
    def address(self) -> str:
        return self.http.address

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.http.close()
            self.swarms.close()


@dataclass
class TorrentWire(Wire):
    """Both sides were told of a blob's torrent when the downloader has its hashes, as the supernode tells them."""

    swarms: TorrentSwarms | None = None
    blobs: dict[Digest, SomeBlob] = field(default_factory=dict)

    def ticket(self, blob: SomeBlob, *, lives_s: float = 3600.0) -> bytes:
        self.blobs[blob.digest] = blob
        return super().ticket(blob, lives_s=lives_s)

    def target(self, blob: SomeBlob) -> BlobHandle:
        self.blobs[blob.digest] = blob
        return super().target(blob)

    def start(
        self, handle: BlobHandle, piece: int, ticket: bytes, *, fetch_id: int = 1, deadline_s: float = 10.0
    ) -> None:
        blob = self.blobs[handle.digest]
        assert isinstance(self.server, TorrentUploader)
        assert self.swarms is not None
        for swarms in (self.swarms, self.server.swarms):
            if not swarms.knows(blob.digest):
                assert swarms.offer(blob.digest, blob.layout, metainfo_of(blob))
        if not self.server.closed:
            self.server.swarms.join(blob.digest, whole=False)
        super().start(handle, piece, ticket, fetch_id=fetch_id, deadline_s=deadline_s)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    supernode, downloader, uploader = (Identity.generate() for _ in range(3))
    source = DiskStore(tmp_path / "source", size_limit_bytes=1 << 30, free_floor_bytes=0)
    target = DiskStore(tmp_path / "target", size_limit_bytes=1 << 30, free_floor_bytes=0)
    http = UploadServer("127.0.0.1:0", source, lambda: supernode.peer, slots=4, queue_max=1000)
    server = TorrentUploader(http, torrent_swarms(source, Told()))
    transport = TorrentTransport(HttpTransport(downloader, workers=4))
    swarms = torrent_swarms(target, Told())
    transport.begin(swarms)
    transport.introduce(peer_name(uploader.peer), f"127.0.0.1:{server.swarms.port}")
    yield TorrentWire(supernode, downloader, uploader, source, target, server, transport, swarms=swarms)
    transport.close()
    server.close()
    source.close()
    target.close()
    assert "pieces" not in http.counters.served(), "every piece came by BitTorrent"


class TestTorrentTransport(TransportSuite):
    pass
