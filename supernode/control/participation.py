"""Who takes part in which swarm, and what follows when somebody leaves, is mistrusted, or proves what it holds. Pure.

A swarm is open as long as somebody is in it or something of it is under way. How members come in is admission's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.ids import short_peer
from proto.pieces import runs
from proto.wire.messages import Voided
from supernode.control.piece_hashes import HASH_BYTES
from supernode.scheduler import contract

if TYPE_CHECKING:
    from proto.ids import Digest, PeerId
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_registry import SwarmRegistry

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Participation:
    """One a supernode."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _seed_reach: SeedReach

    # --- leaving ---------------------------------------------------------------------------------------------------

    def leave(self, session: PeerSession, digest: Digest) -> None:
        """The peer has nothing to do with the blob any more."""
        swarm = self._swarms.numbered(session.forget_swarm(digest))
        if swarm is None:
            return
        if swarm.leave(session.node):
            self.forget_holder(session, swarm)
            self._ports.post(contract.PeerWithdrew(swarm.number, session.node))
        self.settle(swarm)

    def session_over(self, session: PeerSession, reason: str, *, silent: bool = False) -> None:
        """The session ended. What it held is remembered: the peer may come back. Idempotent.

        `silent`: nothing was heard of it any more, and nothing ended it.
        """
        if self._nodes.session(session.node) is not session:
            return
        self._nodes.remove(session)
        self._ports.observer.sessions_changed(len(self._nodes))
        for lease in session.leases.values():
            self._ports.observer.lease_ended(lease.lease_id, "")
        self._ports.post(contract.PeerLost(session.node, reason))
        for number in session.announced.values():
            swarm = self._swarms.numbered(number)
            if swarm is not None:
                swarm.leave(session.node)
                self.settle(swarm, silent=silent)
        session.announced.clear()
        session.wanting.clear()
        session.leases.clear()

    def drop(self, session: PeerSession, swarm: OpenSwarm, message: str) -> None:
        """What the peer has of the blob is not it: it forgets all of it, and counts again once it announces anew."""
        if session.node in swarm.members:
            session.send(Voided(swarm.number, message))
            self.leave(session, swarm.digest)

    def drop_all(self, swarm: OpenSwarm, message: str) -> None:
        """The blob was voided: every member forgets it, and so do we, but for its cut."""
        self._swarms.dropped_cuts[swarm.digest] = swarm.layout
        self._ports.state.forget_swarm(swarm.digest)
        self._ports.post(contract.SwarmVoided(swarm.number))
        for session in self._nodes.sessions_of(swarm.members):
            session.send(Voided(swarm.number, message))
            session.forget_swarm(swarm.digest)
        for fetch_id in swarm.fetches:
            self._ports.seed.cancel_origin(fetch_id)
        swarm.leave_all()
        self.settle(swarm)

    def settle(self, swarm: OpenSwarm, *, silent: bool = False) -> None:
        """After members came or went: keep the blob while it is wanted, forget the swarm when nobody is left.

        `silent`: one was not heard of any more.
        """
        if self._swarms.numbered(swarm.number) is not swarm:
            return
        if swarm.wanted_changed(self._ports.clock()):
            if swarm.pinned:
                self._ports.seed.pin(swarm.digest, swarm.layout)
            else:
                self._ports.seed.unpin(swarm.digest, silent=silent)
        self._seed_reach.review(swarm)
        if swarm.idle:
            self._swarms.close(swarm)
            self._ports.observer.swarms_changed(len(self._swarms))
            if swarm.layout.count:
                self._ports.post(contract.SwarmClosed(swarm.number))

    # --- trust -----------------------------------------------------------------------------------------------------

    def quarantine(self, peer: PeerId, reason: str) -> None:
        """It was proved to serve corrupt bytes: name it to nobody for a while, in this session or a later one."""
        if self._nodes.is_quarantined(peer):
            return
        logger.warning(
            "peer_quarantined peer=%s reason=%s: check its memory and disk; it is asked again in an hour, or after "
            "layercast-supernode node lift", short_peer(peer), reason,
        )  # fmt: skip
        self._nodes.quarantine(peer, reason, self._ports.clock())
        self._ports.observer.quarantines_changed(len(self._nodes.quarantined), began=True)
        session = self._nodes.session_of(peer)
        if session is None:
            return
        self._ports.post(contract.PeerQuarantined(session.node, reason))
        for swarm in self._swarms_of(session):
            swarm.mistrust(session.node)

    def end_quarantine(self, peer: PeerId) -> None:
        """Its time is over, or the operator says so: what it holds counts again. Nothing if it is in none."""
        if not self._nodes.end_quarantine(peer):
            return
        logger.warning("quarantine_ended peer=%s", short_peer(peer))
        self._ports.observer.quarantines_changed(len(self._nodes.quarantined), began=False)
        session = self._nodes.session_of(peer)
        if session is None:
            return
        self._ports.post(contract.QuarantineEnded(session.node))
        for swarm in self._swarms_of(session):
            swarm.trust(session.node)

    def end_quarantines_over(self) -> None:
        """Those whose time is over."""
        for peer in self._nodes.quarantines_over(self._ports.clock()):
            self.end_quarantine(peer)

    def _swarms_of(self, session: PeerSession) -> list[OpenSwarm]:
        found = (self._swarms.numbered(number) for number in session.announced.values())
        return [swarm for swarm in found if swarm is not None]

    # --- what is held ----------------------------------------------------------------------------------------------

    def learn_hashes(self, swarm: OpenSwarm, first: int, hashes: bytes) -> None:
        """Hashes of pieces first, first+1, ... became known: kept, and who said that it holds them is believed now."""
        fresh = 0
        for position in range(len(hashes) // HASH_BYTES):
            piece = first + position
            if swarm.hashes.known >> piece & 1:
                continue
            piece_hash = hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]
            fresh |= 1 << piece
            for node in swarm.learn_hash(piece, piece_hash):
                self._ports.post(contract.PieceStored(swarm.number, node, piece))
        if fresh:
            added = [(begin, swarm.hashes.run(begin, end)) for begin, end in runs(fresh)]
            self._ports.state.add_hashes(swarm.digest, added)

    def remember_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        """The peer holds something: after a restart it is worth waiting for. Written once."""
        if swarm.record_holder(session.info.peer, holds=True):
            self._ports.state.add_holder(swarm.digest, session.info.peer)

    def forget_offers(self, swarm: OpenSwarm) -> None:
        """Nothing that members offer of it, though nobody vouches for it, is waited for."""
        for node, member in swarm.members.items():
            member.fetching = 0
            if member.offered or member.offered_soon:
                member.offered = member.offered_soon = 0
                self._ports.post(contract.PeerOffers(swarm.number, node, 0, 0, 0.0))

    def forget_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        """The peer holds nothing of it."""
        if swarm.record_holder(session.info.peer, holds=False):
            self._ports.state.remove_holder(swarm.digest, session.info.peer)
