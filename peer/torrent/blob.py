"""What the torrent thread knows of one joined blob, and who waits for a piece of it. Plain data."""

from __future__ import annotations

import ipaddress
import logging
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.config.values import HostPort, parse_host_port

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import libtorrent

    from peer.store.base import BlobHandle
    from peer.torrent.bans import Suspects
    from proto.ids import Digest
    from proto.pieces import PieceLayout

log = logging.getLogger(__name__)

# libtorrent's highest priority.
_BEFORE_OTHERS: Final = 7


def resolved(text: str) -> str:
    """HOST:PORT with the address for the name, or nothing; blocking."""
    try:
        address = parse_host_port(text)
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        log.warning("torrent_peer_ignored %r: %s", text[:80], error)
        return ""
    return str(HostPort(str(found[0][4][0]), address.port))


@dataclass(frozen=True, slots=True)
class Want:
    """Somebody waits for one piece. `done(reason, fresh, message)` is called once, from a thread; empty reason: held.

    `fresh`: the piece was brought for this, and counts for nobody else.
    """

    number: int
    piece: int
    done: Callable[[str, bool, str], None]


@dataclass(slots=True, eq=False)
class JoinedBlob:
    """One joined blob. Touched by the torrent thread alone."""

    digest: Digest
    layout: PieceLayout
    handle: libtorrent.torrent_handle
    # Our own, for libtorrent.
    descriptor: int
    # The pin; None once the blob is complete.
    blob: BlobHandle | None
    # Every piece is wanted, not only those that somebody waits for.
    whole: bool
    suspects: Suspects
    wants: list[Want] = field(default_factory=list)
    # Verified by libtorrent, not yet held.
    verified: set[int] = field(default_factory=set)
    adopting: set[int] = field(default_factory=set)
    # When it was left, whether libtorrent has closed its file since, and who waits for that.
    left_s: float = 0.0
    paused: bool = False
    waiters: list[threading.Event] = field(default_factory=list)
    # It was joined again meanwhile, whole or not.
    again: bool | None = None
    # Payload over the wire so far, wanted or not, as was last told.
    received_bytes: int = 0
    sent_bytes: int = 0

    def tell_moved(
        self, status: libtorrent.torrent_status, on_moved: Callable[[Digest, int, int], None], now: float
    ) -> None:
        """What came in and what went out since the last call, if anything did."""
        received_bytes = status.total_payload_download - self.received_bytes
        sent_bytes = status.total_payload_upload - self.sent_bytes
        self.received_bytes, self.sent_bytes = status.total_payload_download, status.total_payload_upload
        if received_bytes > 0:
            self.suspects.moved_s = now
        if received_bytes > 0 or sent_bytes > 0:
            on_moved(self.digest, received_bytes, sent_bytes)

    def prefer(self, pieces: range) -> None:
        """Fetch these before others, however rare those are."""
        if self.whole and self.blob is not None:
            for piece in pieces:
                if not self.blob.held >> piece & 1:
                    self.handle.piece_priority(piece, _BEFORE_OTHERS)

    def connect(self, text: str) -> bool:
        """To HOST:PORT; False if that is a name, or nothing at all."""
        try:
            address = parse_host_port(text)
            ipaddress.ip_address(address.host)
        except ValueError:
            return False
        self.handle.connect_peer((address.host, address.port))
        return True

    def meet_suspect(self, now: float) -> bool:
        """One of those that were shut out; False if for that the torrent must begin anew."""
        address = self.suspects.next(now)
        log.info("torrent_stuck digest=%s next=%s", self.digest.short, address or "anew")
        return address is not None and self.connect(address)

    def end_wants(self, reason: str, message: str, piece: int | None = None) -> None:
        """Tell those who wait for this piece, or for any."""
        ended = [want for want in self.wants if piece is None or want.piece == piece]
        self.wants = [want for want in self.wants if want not in ended]
        for position, want in enumerate(ended):
            want.done(reason, not reason and not position and not self.whole, message)
