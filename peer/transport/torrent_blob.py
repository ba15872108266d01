"""What the torrent thread knows of one joined blob, and who waits for a piece of it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import libtorrent

    from peer.store.base import BlobHandle
    from proto.ids import Digest
    from proto.pieces import PieceLayout


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

    def tell_moved(self, status: libtorrent.torrent_status, on_moved: Callable[[Digest, int, int], None]) -> None:
        """What came in and what went out since the last call, if anything did."""
        received_bytes = status.total_payload_download - self.received_bytes
        sent_bytes = status.total_payload_upload - self.sent_bytes
        self.received_bytes, self.sent_bytes = status.total_payload_download, status.total_payload_upload
        if received_bytes > 0 or sent_bytes > 0:
            on_moved(self.digest, received_bytes, sent_bytes)

    def end_wants(self, reason: str, message: str, piece: int | None = None) -> None:
        """Tell those who wait for this piece, or for any."""
        ended = [want for want in self.wants if piece is None or want.piece == piece]
        self.wants = [want for want in self.wants if want not in ended]
        for position, want in enumerate(ended):
            want.done(reason, not reason and not position and not self.whole, message)
