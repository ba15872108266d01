"""One node's part in one swarm: what it said and what it was sent. Plain data; the swarm says who is a member."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proto.ids import PeerName


@dataclass(slots=True)
class SwarmMember:
    """One session's part in a swarm: what it said and what it was sent. Not the scheduler's, nor a downloader's."""

    name: PeerName
    wanted: bool
    # It has the blob by its clients' permissions alone.
    private: bool = False
    # Registry hosts that its clients named for the blob.
    upstreams: set[str] = field(default_factory=set)
    # What the scheduler knows that it holds.
    held: int = 0
    # Pieces that it says it holds but whose hash is not known here: nobody could check them.
    unproven: int = 0
    # Those that it fetches from an origin by itself and is waited for with, until when; and what the scheduler was told
    # of both.
    fetching: int = 0
    fetching_until_s: float = 0.0
    offered: int = 0
    offered_soon: int = 0
    # Pieces whose hash it knows: we sent it, or it came with the piece; and those whose hash it can pass on with them.
    hashes_sent: int = 0
    passes_on: int = 0
    holders_sent: tuple[int, ...] = ()
    ticket_renew_s: float = 0.0
    # Its last lease failed, and nothing came since: it may reach nobody.
    failing: bool = False
    # What it held when it was last sent how the origin does, and what it was sent.
    status_sent: tuple[int, str, bool] | None = None

    def fetches(self, now_s: float) -> int:
        """The pieces (mask) that it fetches by itself and is waited for with."""
        return self.fetching if now_s < self.fetching_until_s else 0

    def hash_came_with(self, piece: int) -> None:
        """It got the piece together with its hash."""
        if not self.hashes_sent >> piece & 1:
            self.hashes_sent |= 1 << piece
            self.passes_on |= 1 << piece
