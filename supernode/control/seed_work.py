"""What the control has done by the supernode's own store (peer zero), and what comes of it: a contract of two sides.

Implemented by supernode.seed with threads, disk and network, and by the simulator without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from peer.transport.base import PieceSource
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from supernode.control.swarm_registry import OpenSwarm
    from supernode.scheduler.contract import GrantLease


class SeedWork(Protocol):
    """Every call returns at once; what comes of it is reported to SeedEvents."""

    def pin(self, digest: Digest, layout: PieceLayout) -> None:
        """Somebody wants the blob: what is held of it must not be evicted."""
        ...

    def unpin(self, digest: Digest) -> None:
        """Nobody wants it now: it may be evicted."""
        ...

    def fetch_from_origin(self, fetch_id: int, swarm: OpenSwarm, pieces: int) -> None:
        """Fetch the pieces of the mask from the swarm's sources; origin_ended() reports the end exactly once.

        The content of a tiny blob (`swarm.inline`) comes with seed_stored().
        """
        ...

    def cancel_origin(self, fetch_id: int) -> None:
        """End a fetch now; its origin_ended() still comes."""
        ...

    def fetch_from_peer(self, grant: GrantLease, swarm: OpenSwarm, piece_hash: bytes, source: PieceSource) -> None:
        """Begin a transfer; seed_lease_ended() reports its end exactly once."""
        ...

    def cancel_fetch(self, lease_id: int) -> None:
        """End a transfer from a peer."""
        ...

    def check(self, swarm: OpenSwarm) -> None:
        """Compare the digest of a blob of which every piece is held; a mismatch drops all of it."""
        ...

    def void(self, digest: Digest) -> None:
        """Drop what is held of an unfinished blob; what is begun later waits behind it."""
        ...


class SeedEvents(Protocol):
    """What is reported, always on the event loop and never from within a call of SeedWork."""

    def seed_stored(self, swarm: int, piece: int, piece_hash: bytes, content: bytes | None) -> None:
        """A piece came from the origin; `content` is the whole blob when it was to be read back."""
        ...

    def origin_ended(self, fetch_id: int, swarm: int, *, ok: bool) -> None:
        """A fetch from the origin is over."""
        ...

    def seed_lease_ended(
        self, lease_id: int, swarm: int, piece: int, reason: str, elapsed_s: float, stored_bytes: int
    ) -> None:
        """A transfer from a peer is over; `reason` is a FetchReason, empty on success."""
        ...

    def blob_checked(self, swarm: int, matches: bool | None) -> None:
        """The digest was compared. None: the disk failed, nothing is known."""
        ...

    def blob_evicted(self, digest: Digest) -> None:
        """The store let go of a blob."""
        ...
