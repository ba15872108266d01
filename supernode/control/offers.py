"""What members have of a blob that nobody vouches for, and what they fetch of it by themselves. Pure.

A node that began alone, or shared the origin out with others while there was no supernode, has pieces whose hashes it
made itself. The origin is not asked for them again: the seed brings them aside, and they count once the blob's digest
has passed (supernode.gathered_blob).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.transport.base import PieceSource
from proto.ids import peer_name
from proto.pieces import indices
from proto.wire.messages import OriginStatus
from supernode.control.claims import Offer
from supernode.scheduler import contract

if TYPE_CHECKING:
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.control.verification import Verification

# A node that fetches by itself, and whose pieces are waited for, stores one at least so often. One that lies holds up a
# blob for so long at most, and is not waited for again.
HEADWAY_S: Final = 15.0
# Of one node at a time.
FETCHES_MAX: Final = 16
# Blobs for which one member is asked for what it offers, at a time: each is held up until that is known to be of use.
TRIED_MAX: Final = 4
# Members that are asked for one piece, one after the other.
OFFERS_MAX: Final = 3


@dataclass(eq=False, slots=True)
class Offers:
    """One a supernode."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _verification: Verification

    # --- what members say ------------------------------------------------------------------------------------------

    def announced(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, fetching: int) -> None:
        """The member fetches these pieces (mask) from an origin by itself: it goes on, or is told to leave them to us.

        It goes on where nobody else has any of them or fetches them, and no other fetch of its kind broke off here. Of
        those who fetch the same the one that is ahead goes on: who comes to what another has is told to stop.
        """
        now_s = self._ports.clock()
        behind = self._behind(session, swarm, member, now_s)
        for _, other in behind:
            other.fetching = 0
        goes_on = fetching != 0 and self._may_go_on(session, swarm, fetching, now_s)
        if not member.fetches(now_s):
            # To say it again is no headway.
            member.fetching_until_s = now_s + HEADWAY_S
        member.fetching = fetching if goes_on else 0
        if fetching:
            session.send(OriginStatus(swarm.number, "fetching", goes_on))
        # First who goes on: the origin is not to be asked for what it fetches.
        self.tell(session, swarm, member)
        for each, other in behind:
            each.send(OriginStatus(swarm.number, "fetching", elected=False))
            self.tell(each, swarm, other)

    def _behind(
        self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, now_s: float
    ) -> list[tuple[PeerSession, SwarmMember]]:
        """Members that fetch what this one has."""
        if not member.unproven or not self._gives(session) or self._verification.goes_to_origin(swarm.digest):
            return []
        others = [(other, swarm.members[other.node]) for other in self._nodes.sessions_of(swarm.members)]
        return [each for each in others if each[0] is not session and each[1].fetches(now_s) & member.unproven]

    def _may_go_on(self, session: PeerSession, swarm: OpenSwarm, fetching: int, now_s: float) -> bool:
        parts = (self._swarms.part(number, session.node) for number in session.announced.values())
        own = [part for part in parts if part is not None and part[1].fetching]
        if any(not member.fetches(now_s) for _, member in own):
            session.fetched_in_vain = True
        of_others = sum(other is not swarm for other, _ in own)
        if session.fetched_in_vain or of_others >= FETCHES_MAX or not self._gives(session):
            return False
        if swarm.elected is not None or self._verification.goes_to_origin(swarm.digest):
            return False
        elsewhere = swarm.seed_held | (swarm.fetch_pieces if swarm.fetches else 0)
        for other in self._nodes.sessions_of(swarm.members):
            if other is not session:
                member = swarm.members[other.node]
                elsewhere |= member.held | member.fetches(now_s) | (member.unproven if self._gives(other) else 0)
        return not fetching & elsewhere

    def stored(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, piece: int) -> None:
        """The member stored a piece whose hash is not known here."""
        if member.fetching >> piece & 1:
            member.fetching &= ~(1 << piece)
            member.fetching_until_s = self._ports.clock() + HEADWAY_S
        self.tell(session, swarm, member)

    def ended(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """The member's own fetch is over, with or without the rest."""
        if member.fetching:
            member.fetching = 0
            self.tell(session, swarm, member)

    def tell(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """Have the scheduler know what the member has to offer, if that is something or was."""
        now_s = self._ports.clock()
        held, fetching = member.unproven, member.fetches(now_s)
        if not self._gives(session) or self._verification.goes_to_origin(swarm.digest):
            held = fetching = 0
        if (held, fetching) != (member.offered, member.offered_soon):
            member.offered, member.offered_soon = held, fetching
            left_s = member.fetching_until_s - now_s if fetching else 0.0
            self._ports.post(contract.PeerOffers(swarm.number, session.node, held, fetching, left_s))

    # --- what the seed may bring -----------------------------------------------------------------------------------

    def of(self, swarm: OpenSwarm, pieces: int) -> dict[int, tuple[Offer, ...]]:
        """Of these pieces (mask), which the seed is to fetch, those that members offer, and who; empty if none is.

        With them all others that the seed does not hold and does not ask the origin for: the digest is of the whole.
        """
        if self._verification.goes_to_origin(swarm.digest):
            return {}
        givers = [(session, swarm.members[session.node]) for session in self._nodes.sessions_of(swarm.members)]
        tried = Counter(peer for other in self._swarms if other is not swarm and other.fetches for peer in other.givers)
        givers = [each for each in givers if self._gives(each[0]) and tried[each[0].info.peer] < TRIED_MAX]
        unproven = swarm.claims.pieces
        for _, member in givers:
            unproven |= member.unproven
        if not pieces & unproven:
            return {}
        found: dict[int, tuple[Offer, ...]] = {}
        for piece in indices(swarm.layout.full_mask & ~swarm.seed_held & ~(pieces & ~unproven)):
            claim = swarm.claims.of(piece)
            having = [
                session
                for session, member in givers
                if (member.held if claim is not None else member.held | member.unproven) >> piece & 1
            ]
            if claim is not None:
                # They send pieces to one another now: each gives a part.
                first = piece % max(1, len(having))
                having = having[first:] + having[:first]
            if having:
                claimed_hash = claim.piece_hash if claim is not None else b""
                found[piece] = tuple(_offer(session, swarm, claimed_hash) for session in having[:OFFERS_MAX])
        return found

    def _gives(self, session: PeerSession) -> bool:
        peer = session.info.peer
        put_aside = self._nodes.is_quarantined(peer) or self._verification.gives_nothing(peer)
        return session.info.upload_slots > 0 and not put_aside


def _offer(session: PeerSession, swarm: OpenSwarm, claim: bytes) -> Offer:
    peer = session.info.peer
    return Offer(peer, PieceSource(peer_name(peer), session.info.address, swarm.private), claim)
