"""What members are sent of a swarm: other nodes, piece hashes, tickets, holders, how the origin does. Pure.

The one writer of what a session has been sent of these. It decides nothing: leases are granted and cancelled by
command_handler, and whether a peer may have a blob at all is admission's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.transport.wire import RUN_WITH_PIECE_MAX
from proto.config.values import HostPort, parse_host_port
from proto.ids import peer_name
from proto.pieces import mask_to_bytes
from proto.wire.messages import SEED_NODE, Holders, NodeKnown, OriginStatus, PieceHashes, SwarmOpened
from proto.wire.tickets import TICKET_RENEW_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.wire.messages import Source
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.control.piece_hashes import Signer
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry

# Every piece that a blob may have, as a mask.
ALL_PIECES: Final = -1
# A swarm moved lately. Longer than a piece takes on a slow link, and than the frames that say so are apart; shorter
# than a peer waits for a swarm without a word (peer.downloader.limits, stall_s): older news is none to wait for.
MOVED_LATELY_S: Final = 20.0
# What is repeated goes with a frame of each session after so many ping intervals (supernode.session).
REFRESH_INTERVALS: Final = 1.5


@dataclass(eq=False, slots=True)
class Notifier:
    """`_delivery_port` is our own delivery's, 0 for none (delivery). `_clock` is monotonic seconds. `_has_login`: the
    operator gave us one for that upstream.
    """

    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _signer: Signer
    _clock: Callable[[], float]
    _delivery_port: int
    _has_login: Callable[[str], bool]

    def introduce(self, session: PeerSession, node: int) -> None:
        """Say who a node is, once a session."""
        if node in session.nodes_known:
            return
        if node == SEED_NODE:
            delivery = self._seed_delivery(session)
            known = NodeKnown(SEED_NODE, peer_name(self._signer.peer), session.seed_address, delivery)
        else:
            other = self._nodes.session(node)
            if other is None:
                return
            known = NodeKnown(node, peer_name(other.info.peer), other.info.address, other.info.delivery_address)
        session.nodes_known.add(node)
        session.send(known)

    def _seed_delivery(self, session: PeerSession) -> str:
        if not self._delivery_port:
            return ""
        return str(HostPort(parse_host_port(session.seed_address).host, self._delivery_port))

    def send_hashes(
        self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, pieces: int = ALL_PIECES
    ) -> None:
        """The known hashes of these pieces (mask) that this session does not know."""
        missing = swarm.hashes.known & ~member.hashes_sent & pieces
        for signed in swarm.hashes.signed_for(missing):
            session.send(PieceHashes(swarm.number, signed.first, signed.hashes, signed.signature))
            if signed.count <= RUN_WITH_PIECE_MAX:
                member.passes_on |= signed.pieces
        member.hashes_sent |= missing

    def send_opened(
        self,
        session: PeerSession,
        swarm: OpenSwarm,
        member: SwarmMember,
        age_s: float = 0.0,
        public_at: tuple[Source, ...] = (),
    ) -> None:
        """The answer to an announcement, with a ticket that is good for ten minutes. The rest: see SwarmOpened."""
        member.ticket_renew_s = self._clock() + TICKET_RENEW_S
        ticket = self._signer.ticket(swarm.digest, session.info.peer)
        size_bytes, piece_size_bytes = swarm.layout.size_bytes, swarm.layout.piece_size_bytes
        digest, private = str(swarm.digest), member.private
        # What a member's own client brings is vouched for by the blob's digest alone.
        whole = swarm.private and not any(self._has_login(source.upstream) for source in swarm.sources[:1])
        session.send(
            SwarmOpened(swarm.number, digest, size_bytes, piece_size_bytes, ticket, private, age_s, whole, public_at)
        )

    def send_holders(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """Whom to ask if this session is lost, if that changed."""
        nodes = swarm.holders.named_to(session.node)
        if nodes == member.holders_sent:
            return
        member.holders_sent = nodes
        for node in nodes:
            self.introduce(session, node)
        session.send(Holders(swarm.number, nodes))

    def send_holders_to_all(self, swarm: OpenSwarm) -> None:
        """The same for every member that waits for the blob."""
        for node, member in swarm.members.items():
            session = self._nodes.session(node)
            if session is not None and member.wanted:
                self.send_holders(session, swarm, member)

    def send_origin_status(self, swarm: OpenSwarm) -> None:
        """How the origin does, to every member that waits for the blob."""
        for node, member in swarm.members.items():
            session = self._nodes.session(node)
            if session is not None and member.wanted:
                session.send(self._status(swarm, node))

    def refresh(self, session: PeerSession) -> None:
        """What is repeated every few seconds for every swarm that this peer waits for, and what could wait till now."""
        due, session.hashes_due = session.hashes_due, set()
        for number in sorted(due):
            part = self._swarms.part(number, session.node)
            if part is not None:
                self.send_hashes(session, *part)
        for number in list(session.wanting):
            part = self._swarms.part(number, session.node)
            if part is None:
                session.wanting.discard(number)
                continue
            swarm, member = part
            if swarm.origin_state:
                self._repeat_status(session, swarm, member)
            elif not member.failing and self._is_to_wait(session, swarm):
                session.send(OriginStatus(number, "sharing", swarm.elected == session.node))
            self.send_holders(session, swarm, member)
            if self._clock() >= member.ticket_renew_s:
                self.send_opened(session, swarm, member)

    def _repeat_status(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """A piece that it got meanwhile says by itself that we get on."""
        status = (swarm.origin_state, self._asks(swarm, session.node))
        before, member.status_sent = member.status_sent, (member.held, *status)
        if before is None or before[1:] != status or before[0] == member.held:
            session.send(self._status(swarm, session.node))

    def _status(self, swarm: OpenSwarm, node: int) -> OriginStatus:
        left_s = max(0.0, swarm.origin_free_s - self._clock()) if swarm.origin_free_s else 0.0
        pieces = b""
        if node == swarm.elected and swarm.elected_pieces != swarm.layout.full_mask:
            pieces = mask_to_bytes(swarm.elected_pieces, swarm.layout.count)
        return OriginStatus(swarm.number, swarm.origin_state, self._asks(swarm, node), left_s, pieces)

    def _asks(self, swarm: OpenSwarm, node: int) -> bool:
        """Whether this member is to ask the origin, or to go on with what it asks."""
        return node == swarm.elected or swarm.members[node].fetches(self._clock()) != 0

    def _is_to_wait(self, session: PeerSession, swarm: OpenSwarm) -> bool:
        """The swarm moves, and this peer has no lease to see that by: it would go upstream, with all its like."""
        return self._clock() - swarm.moved_s <= MOVED_LATELY_S and not session.has_lease_in(swarm.number)
