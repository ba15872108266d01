"""Who is in which swarm, and what follows when somebody leaves, is trusted no more, or proves what it holds. Pure.

A swarm is open as long as somebody is in it or something of it is under way. How members come in is admission's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proto.ids import short_peer
from proto.wire.messages import Voided
from supernode.control.piece_hashes import HASH_BYTES
from supernode.scheduler import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.observer import ControlObserver
    from supernode.control.peer_session import PeerSession
    from supernode.control.seed_work import SeedWork
    from supernode.control.swarm_registry import OpenSwarm, SwarmRegistry

    Post = Callable[[contract.Event], None]

    class SwarmState(Protocol):
        """What of swarms outlives a restart (supernode.state.base says what each operation does). Never blocks."""

        def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None: ...
        def add_source(self, digest: Digest, source: Source) -> None: ...
        def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None: ...
        def vouch(self, digest: Digest, hashes: bytes) -> None: ...
        def add_holder(self, digest: Digest, peer: PeerId) -> None: ...
        def remove_holder(self, digest: Digest, peer: PeerId) -> None: ...
        def forget_swarm(self, digest: Digest) -> None: ...


logger = logging.getLogger(__name__)


class Membership:
    """See the module."""

    def __init__(
        self,
        swarms: SwarmRegistry,
        nodes: NodeRegistry,
        *,
        post: Post,
        seed: SeedWork,
        state: SwarmState,
        observer: ControlObserver,
    ) -> None:
        self._swarms = swarms
        self._nodes = nodes
        self._post = post
        self._seed = seed
        self._state = state
        self._observer = observer

    # --- leaving ---------------------------------------------------------------------------------------------------

    def leave(self, session: PeerSession, digest: Digest) -> None:
        """The peer has nothing to do with the blob any more."""
        swarm = self._swarms.numbered(session.forget_swarm(digest))
        if swarm is None:
            return
        if swarm.leave(session.node):
            self.forget_holder(session, swarm)
            self._post(contract.PeerWithdrew(swarm.number, session.node))
        self.settle(swarm)

    def session_over(self, session: PeerSession, reason: str) -> None:
        """The session ended. What it held is remembered: the peer may come back. Idempotent."""
        if self._nodes.session(session.node) is not session:
            return
        self._nodes.remove(session)
        self._observer.sessions_changed(len(self._nodes))
        for lease in session.leases.values():
            self._observer.lease_ended(lease.lease_id, "")
        self._post(contract.PeerLost(session.node, reason))
        for number in session.announced.values():
            swarm = self._swarms.numbered(number)
            if swarm is not None:
                swarm.leave(session.node)
                self.settle(swarm)
        session.announced.clear()
        session.wanting.clear()
        session.leases.clear()

    def drop_all(self, swarm: OpenSwarm, message: str) -> None:
        """The blob was voided: every member forgets it, and so do we."""
        self._state.forget_swarm(swarm.digest)
        self._post(contract.SwarmVoided(swarm.number))
        for session in self._nodes.sessions_of(swarm.members):
            session.send(Voided(swarm.number, message))
            session.forget_swarm(swarm.digest)
        for fetch_id in swarm.fetches:
            self._seed.cancel_origin(fetch_id)
        swarm.leave_all()
        self.settle(swarm)

    def settle(self, swarm: OpenSwarm) -> None:
        """After members came or went: keep the blob while it is wanted, forget the swarm when nobody is left."""
        if self._swarms.numbered(swarm.number) is not swarm:
            return
        wanted = swarm.layout.count > 0 and swarm.wanted_by > 0
        if wanted != swarm.pinned:
            swarm.pinned = wanted
            if wanted:
                self._seed.pin(swarm.digest, swarm.layout)
            else:
                self._seed.unpin(swarm.digest)
        if swarm.idle:
            self._swarms.close(swarm)
            self._observer.swarms_changed(len(self._swarms))
            if swarm.layout.count:
                self._post(contract.SwarmClosed(swarm.number))

    # --- trust -----------------------------------------------------------------------------------------------------

    def quarantine(self, peer: PeerId, reason: str) -> None:
        """Name this peer to nobody any more, in this session or a later one."""
        logger.warning("peer_quarantined peer=%s reason=%s", short_peer(peer), reason)
        self._nodes.quarantine(peer)
        session = self._nodes.session_of(peer)
        if session is None:
            return
        for number in session.announced.values():
            swarm = self._swarms.numbered(number)
            if swarm is not None:
                swarm.mistrust(session.node)

    # --- what is held ----------------------------------------------------------------------------------------------

    def learn_hashes(self, swarm: OpenSwarm, first: int, hashes: bytes) -> None:
        """Hashes of pieces first, first+1, ... became known: kept, and who said that it holds them is believed now."""
        fresh = []
        for position in range(len(hashes) // HASH_BYTES):
            piece = first + position
            if swarm.hashes.known >> piece & 1:
                continue
            piece_hash = hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]
            fresh.append((piece, piece_hash))
            for node in swarm.learn_hash(piece, piece_hash):
                self._post(contract.PieceStored(swarm.number, node, piece))
        if fresh:
            self._state.add_hashes(swarm.digest, fresh)

    def remember_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        """The peer holds something: after a restart it is worth waiting for. Written once."""
        if session.info.peer not in swarm.recorded:
            swarm.recorded.add(session.info.peer)
            self._state.add_holder(swarm.digest, session.info.peer)

    def forget_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        """The peer holds nothing of it."""
        if session.info.peer in swarm.recorded:
            swarm.recorded.discard(session.info.peer)
            self._state.remove_holder(swarm.digest, session.info.peer)
