"""What the torrent thread knows of one blob, named or joined. Plain data, used by that thread only."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.config.values import parse_host_port

if TYPE_CHECKING:
    import threading

    import libtorrent

    from peer.store.base import BlobHandle
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# More connections serve nobody.
_PEERS_MAX: Final = 100
# Once peers were banned: connecting again, and a turn to be served, take less.
_HALT_S: Final = 3.0


@dataclass(slots=True)
class KnownTorrent:
    """A blob's cut, its metainfo, and whom to connect to (HOST:PORT)."""

    layout: PieceLayout
    metainfo: bytes
    peers: list[str]
    # Those that were asked one at a time, the last of them now. Empty: all are asked at once.
    alone: list[str] = field(default_factory=list)

    def add_peers(self, addresses: list[str]) -> None:
        """Others that take part."""
        self.peers = [*self.peers, *addresses][-_PEERS_MAX:]

    @property
    def asked(self) -> list[str]:
        """Whom to connect to now."""
        return self.alone[-1:] or self.peers

    def ask_next_alone(self) -> str:
        """From now on one is asked at a time; who it is. "": each was, and now all are again."""
        left = [address for address in self.peers if address not in self.alone]
        self.alone = [*self.alone, left[0]] if left else []
        return left[0] if left else ""


@dataclass(slots=True, eq=False)
class JoinedBlob:
    """A blob that is a torrent in the session, or is on its way out of it."""

    digest: Digest
    layout: PieceLayout
    handle: libtorrent.torrent_handle
    # Our own descriptor of the data file; libtorrent knows the file by its number.
    descriptor: int
    # The pin in the store while missing pieces are fetched; None when the blob is only served.
    pin: BlobHandle | None
    complete: bool
    # Pieces that libtorrent has verified and the store does not hold yet; those being checked now.
    verified: set[int] = field(default_factory=set)
    adopting: set[int] = field(default_factory=set)
    # When it was left (0.0: it was not), and whether libtorrent has closed its file since.
    left_s: float = 0.0
    paused: bool = False
    # Join it again as soon as it has been left.
    again: bool = False
    waiters: list[threading.Event] = field(default_factory=list)
    # Wrong blocks came, and libtorrent may have banned honest peers for them.
    doubted: bool = False
    # When payload last came, or it was joined.
    received_s: float = field(default_factory=time.monotonic)
    # Payload over the wire by the last report, wanted or not.
    received_bytes: int = 0
    sent_bytes: int = 0

    def lacks(self, piece: int) -> bool:
        """Whether this piece is being fetched."""
        return self.pin is not None and not self.left_s and not self.pin.held >> piece & 1

    def halted(self, now_s: float) -> bool:
        """Whether nothing has come of what is fetched since some were banned."""
        return self.doubted and self.pin is not None and now_s - self.received_s >= _HALT_S

    def connect(self, address: str) -> bool:
        """Connect to HOST:PORT; False if that is no numeric address."""
        try:
            target = parse_host_port(address)
            ipaddress.ip_address(target.host)
        except ValueError:
            return False
        self.handle.connect_peer((target.host, target.port))
        return True

    def moved_since(self, status: libtorrent.torrent_status) -> tuple[int, int]:
        """Payload bytes received and sent since the last call."""
        received_bytes = status.total_payload_download - self.received_bytes
        sent_bytes = status.total_payload_upload - self.sent_bytes
        if received_bytes > 0:
            self.received_s = time.monotonic()
        self.received_bytes, self.sent_bytes = status.total_payload_download, status.total_payload_upload
        return received_bytes, sent_bytes

    def unpin(self) -> None:
        """Give the pin back to the store."""
        pin, self.pin = self.pin, None
        if pin is not None:
            pin.close()
