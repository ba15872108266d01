"""What the control has of the world outside: clocks, inbox, store, saved state, key, and who watches it.

Made by the service, with threads, disk and network, and by the simulator, without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.transport.base import PieceSource
    from proto.ids import Digest, PeerId, PeerName
    from proto.pieces import PieceLayout
    from proto.wire.messages import PreheatEnded, Source
    from supernode.control.claims import Offer
    from supernode.control.delivery import PieceDelivery
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.piece_hashes import Signer
    from supernode.scheduler import contract
    from supernode.scheduler.contract import Pace
    from supernode.state.base import SwarmState


class SeedWork(Protocol):
    """What the supernode's own store (peer zero) does. Every call returns at once.

    What comes of it is reported to Verification, always on the event loop and never from within a call.
    """

    def pin(self, digest: Digest, layout: PieceLayout) -> None:
        """Somebody wants the blob: what is held of it must not be evicted."""

    def unpin(self, digest: Digest, *, silent: bool) -> None:
        """Nobody wants it now: it may be evicted. `silent`: the last who did fell silent, and may come back."""

    def fetch_from_origin(
        self, fetch_id: int, swarm: OpenSwarm, pieces: int, offers: dict[int, tuple[Offer, ...]]
    ) -> None:
        """Fetch the pieces of the mask from `swarm.fetch_sources`; origin_ended() reports the end exactly once.

        The content of a tiny blob (`swarm.inline`) comes with seed_stored(). What members offer (`offers`, by piece) is
        brought from them instead, and offers_tried() says what that was worth: nothing of it counts before the
        digest has passed.
        """

    def also_wanted(self, fetch_id: int, asker: PeerName) -> None:
        """This node wants it too: if the fetch waits in its upstream's queue, it begins when the first turn comes."""

    def cancel_origin(self, fetch_id: int) -> None:
        """End a fetch now; its origin_ended() still comes."""

    def end_origin(self, fetch_id: int) -> None:
        """The same after the piece in hand."""

    def fetch_from_peer(
        self, grant: contract.GrantLease, swarm: OpenSwarm, piece_hash: bytes, peer: PeerId, source: PieceSource
    ) -> None:
        """Begin a transfer from this peer; seed_lease_ended() reports its end exactly once."""

    def probe(self, swarm: OpenSwarm, piece: int, piece_hash: bytes, peer: PeerId, source: PieceSource) -> None:
        """Fetch a piece to see what the peer serves, whether it is held or not; probed() tells exactly once."""

    def cancel_fetch(self, lease_id: int) -> None:
        """End a transfer from a peer."""

    def check(self, swarm: OpenSwarm) -> None:
        """Compare the digest of a blob of which every piece is held; a mismatch drops all of it."""

    def suspect(self, digest: Digest, pieces: int) -> None:
        """A peer says that these pieces (mask) came corrupt from the store: read them, and report those that rotted."""

    def void(self, digest: Digest) -> None:
        """Drop what is held of an unfinished blob; what is begun later waits behind it."""


class ControlObserver:
    """Who watches: the service's metrics, the simulator's checkers. Changes nothing; each method may be left as here.

    Lease ids are the scheduler's; the seed has the supernode's own key.
    """

    def sessions_changed(self, count: int) -> None:
        """A session opened or ended."""

    def swarms_changed(self, count: int) -> None:
        """A swarm opened or was closed."""

    def lease_granted(self, lease_id: int, source: PeerId, receiver: PeerId, *, inline: bool) -> None:
        """A lease was sent to its receiver; `inline`: with the content, so that it takes no slot."""

    def lease_ended(self, lease_id: int, outcome: str) -> None:
        """`outcome`: stored, failed, cancelled or expired; empty where the receiver's session is over."""

    def received_from_peer(self, count_bytes: int) -> None:
        """The seed got payload from a node."""

    def node_elected(self) -> None:
        """A node is to ask an origin for all, since the supernode cannot."""

    def origin_opened(self, digest: Digest) -> None:
        """Every node may ask the origin for itself from now on."""

    def source_accused(self, reason: str) -> None:
        """A peer reported that a transfer from another peer failed, and why."""

    def quarantines_changed(self, count: int, *, began: bool) -> None:
        """A peer was put aside, or is asked again."""

    def digest_checked(self, *, matches: bool) -> None:
        """The digest of a whole blob was compared."""


def _no_login(upstream: str) -> bool:
    return False


def _nobody_has_jobs(peer: PeerId, ended: PreheatEnded) -> None:
    """A peer answers what nobody asked."""


def _not_measured() -> None:
    return None


@dataclass(frozen=True, slots=True)
class ControlPorts:
    """`has_login`: whether the operator gave us a login for this upstream. `preheat_ended` hears answers to Preheat.
    `pace`: see Scheduler, and what comes from origins; None until enough is known.

    `clock` is monotonic, `unix_clock` Unix seconds, `uplink_rate` the supernode's uplink now, bytes/s.

    `post` queues an event for the scheduler. `recover_until`, by `clock`, ends the wait for peers after a restart.
    `forget_public` has a source asked anew whether it gives a blob to anyone. `seed_address` gives our upload address
    for a peer that reached us at this host, and `seed_connected` whether this peer is connected to it now.
    `announced_max`: blobs that one peer may hold or want at a time.
    """

    post: Callable[[contract.Event], None]
    clock: Callable[[], float]
    unix_clock: Callable[[], float]
    signer: Signer
    seed: SeedWork
    state: SwarmState
    observer: ControlObserver
    delivery: PieceDelivery
    forget_public: Callable[[Source, Digest], None]
    uplink_rate: Callable[[], float]
    recover_until: float
    seed_address: Callable[[str], str]
    seed_connected: Callable[[PeerId], bool]
    announced_max: int
    has_login: Callable[[str], bool] = _no_login
    preheat_ended: Callable[[PeerId, PreheatEnded], None] = _nobody_has_jobs
    pace: Callable[[], Pace | None] = _not_measured
