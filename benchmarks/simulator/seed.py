"""The simulated supernode's own store: gaps from peers, ranges from the origin, the digest. No threads, no disk.

Stands in for supernode.seed: implements supernode.control.ports.SeedWork. What comes of it is reported by way of
the supernode's queue, as by way of its loop.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from benchmarks.simulator.names import ANY_HASH, node_of
from proto.pieces import indices, mask_of, runs
from proto.wire.messages import FetchReason
from supernode.control.open_swarm import SeedBlob
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.environment import Environment
    from benchmarks.simulator.origin import Fetch
    from benchmarks.simulator.transfer import Transfer
    from peer.transport.base import PieceSource
    from proto.ids import Digest, PeerId, PeerName
    from proto.pieces import PieceLayout
    from supernode.control.claims import Offer
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.verification import Verification
    from supernode.scheduler.contract import GrantLease

# The digest runs along with the pieces that come in order; what is left at the end is about one piece.
_SHA256_BYTES_S: Final = 1.4e9
# See supernode.gathered_blob.
_PIECE_WAIT_S: Final = 10.0
# Numbers of transfers that no lease and no fetch from the origin stands behind.
_PROBES_FROM: Final = 1 << 60


class Seed:
    """`queue(work, *arguments)` has work done in its turn; `held_by_live(digest)` is for the checkers."""

    def __init__(
        self, environment: Environment, queue: Callable[..., None], held_by_live: Callable[[Digest], int]
    ) -> None:
        self._environment = environment
        self._queue = queue
        self._held_by_live = held_by_live
        self._endpoint = environment.transport.endpoints[SEED]
        self._events: Verification | None = None
        self._transfers: dict[int, Transfer] = {}
        self._fetches: dict[int, Fetch] = {}
        self._offered: dict[int, Transfer] = {}
        self._probes = 0
        self._checked: dict[Digest, None] = {}

    def report_to(self, events: Verification) -> None:
        """Whom to tell; before any other call."""
        self._events = events

    def look(self, digest: Digest, layout: PieceLayout) -> SeedBlob | None:
        """What the store has of a blob."""
        held = self._endpoint.held[self._environment.blobs[digest]]
        if not held:
            return None
        hashes = tuple((first, ANY_HASH * (last + 1 - first)) for first, last in runs(held))
        return SeedBlob(layout, held, digest in self._checked, hashes, None)

    def pin(self, digest: Digest, layout: PieceLayout) -> None:
        """See SeedWork. Nothing is ever evicted here."""

    def unpin(self, digest: Digest, *, silent: bool) -> None:
        """See SeedWork."""

    def suspect(self, digest: Digest, pieces: int) -> None:
        """See SeedWork. No disk rots here."""

    def void(self, digest: Digest) -> None:
        """See SeedWork. No content is ever wrong as a whole here."""

    def check(self, swarm: OpenSwarm) -> None:
        assert self._events is not None
        self._checked[swarm.digest] = None
        rest_s = swarm.layout.piece_size_bytes / _SHA256_BYTES_S
        self._environment.clock.run_after(rest_s, self._queue, self._events.blob_checked, swarm.number, True)

    # --- from peers --------------------------------------------------------------------------------------------

    def fetch_from_peer(
        self, grant: GrantLease, swarm: OpenSwarm, piece_hash: bytes, peer: PeerId, source: PieceSource
    ) -> None:
        lease_id, piece = grant.lease_id, grant.piece

        def ended(_: int, reason: str, elapsed_s: float) -> None:
            assert self._events is not None
            del self._transfers[lease_id]
            stored_bytes = 0 if reason else swarm.layout.length(piece)
            self._queue(
                self._events.seed_lease_ended, lease_id, swarm.number, piece, reason, elapsed_s, stored_bytes, peer
            )

        blob = self._environment.blobs[swarm.digest]
        self._transfers[lease_id] = self._environment.transport.fetch(
            SEED, node_of(source.peer), blob, piece, grant.expires_in_s, ended, lease_id
        )

    def probe(self, swarm: OpenSwarm, piece: int, piece_hash: bytes, peer: PeerId, source: PieceSource) -> None:
        """See SeedWork."""
        self._probes += 1

        def ended(_: int, reason: str, elapsed_s: float) -> None:
            assert self._events is not None
            self._queue(self._events.probed, swarm.digest, piece, peer, reason)

        blob = self._environment.blobs[swarm.digest]
        self._environment.transport.fetch(
            SEED, node_of(source.peer), blob, piece, _PIECE_WAIT_S, ended, -(_PROBES_FROM + self._probes)
        )

    def cancel_fetch(self, lease_id: int) -> None:
        transfer = self._transfers.get(lease_id)
        if transfer is not None:
            self._environment.transport.cancel(transfer)

    # --- from the origin -----------------------------------------------------------------------------------------

    def fetch_from_origin(
        self, fetch_id: int, swarm: OpenSwarm, pieces: int, offers: dict[int, tuple[Offer, ...]]
    ) -> None:
        if offers:
            self._take_offered(fetch_id, swarm, pieces, offers)
        else:
            self._ask_origin(fetch_id, swarm, pieces)

    def _take_offered(self, fetch_id: int, swarm: OpenSwarm, pieces: int, offers: dict[int, tuple[Offer, ...]]) -> None:
        """Piece after piece from the first that offers it; what is not given, or not offered, comes from the origin."""
        left, asked = deque(piece for piece in offers if pieces >> piece & 1), pieces & ~mask_of(offers)
        blob = self._environment.blobs[swarm.digest]

        def ended(_: int, reason: str, elapsed_s: float) -> None:
            del self._offered[fetch_id]
            if reason == FetchReason.CANCELLED:
                self._queue(self._report_end, fetch_id, swarm.number, False)
                return
            if not reason:
                self._queue(self._stored, swarm, left.popleft())
            if left and not reason:
                begin()
            elif (rest := asked | mask_of(left)) and not swarm.private:
                self._ask_origin(fetch_id, swarm, rest)
            else:
                self._queue(self._report_end, fetch_id, swarm.number, not rest)

        def begin() -> None:
            source = offers[left[0]][0].source
            self._offered[fetch_id] = self._environment.transport.fetch(
                SEED, node_of(source.peer), blob, left[0], _PIECE_WAIT_S, ended, -fetch_id
            )

        begin()

    def _stored(self, swarm: OpenSwarm, piece: int) -> None:
        assert self._events is not None
        self._events.seed_stored(
            swarm.number, piece, ANY_HASH, bytes(swarm.layout.size_bytes) if swarm.inline else None
        )

    def _ask_origin(self, fetch_id: int, swarm: OpenSwarm, pieces: int) -> None:
        environment, layout = self._environment, swarm.layout
        blob = environment.blobs[swarm.digest]
        for checker in environment.checkers:
            checker.origin_asked(environment.clock.now, blob, pieces, self._held_by_live(swarm.digest))
        content = bytes(layout.size_bytes) if swarm.inline else None

        def stored(piece: int) -> None:
            assert self._events is not None
            for checker in environment.checkers:
                checker.arrived(environment.clock.now, SEED, blob, piece, layout.length(piece))
                checker.claimed(environment.clock.now, SEED, blob, piece)
            self._queue(self._events.seed_stored, swarm.number, piece, ANY_HASH, content)

        def ended(reason: str) -> None:
            del self._fetches[fetch_id]
            for checker in environment.checkers:
                checker.origin_ended(environment.clock.now, blob, pieces)
            self._queue(self._report_end, fetch_id, swarm.number, not reason)

        assert self._events is not None
        self._queue(self._events.origin_began, fetch_id, swarm.number)
        self._fetches[fetch_id] = environment.origin.fetch(self._endpoint, blob, deque(indices(pieces)), stored, ended)

    def _report_end(self, fetch_id: int, swarm: int, ok: bool) -> None:
        assert self._events is not None
        self._events.origin_ended(fetch_id, swarm, ok=ok)

    def also_wanted(self, fetch_id: int, asker: PeerName) -> None:
        """Nothing: no fetch waits here."""

    def end_origin(self, fetch_id: int) -> None:
        """See SeedWork. Here every fetch ends so."""
        self.cancel_origin(fetch_id)

    def cancel_origin(self, fetch_id: int) -> None:
        fetch = self._fetches.get(fetch_id)
        if fetch is not None:
            fetch.stop()
        elif fetch_id in self._offered:
            self._environment.transport.cancel(self._offered[fetch_id])
