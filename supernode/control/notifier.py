"""What members are told of a swarm: other nodes, piece hashes, tickets, holders, how the origin does.

The one writer of what a session knows of these. It decides nothing: leases are granted and cancelled by
supernode.control.driver, and whether a peer may have a blob at all is supernode.control.admission's to say. Lives on
the event loop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from peer.node.live_blob import hashes_mask
from peer.transport.wire import TOLD_RUN_MAX
from proto.config.values import HostPort, parse_host_port
from proto.ids import peer_name
from proto.wire.messages import SEED_NODE, Holders, NodeKnown, OriginStatus, PieceHashes, SwarmOpened
from proto.wire.tickets import TICKET_LIFE_S, issue_ticket
from supernode.control.piece_hashes import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.wire.tickets import Identity
    from supernode.control.node_registry import NodeBook
    from supernode.control.swarm_registry import Member, Swarm, SwarmBook
    from supernode.session.session import Link

# Every piece that a blob may have, as a mask.
ALL_PIECES: Final = -1
# A swarm moved lately. Longer than a piece takes on a slow link, and than the frames that tell of it are apart; shorter
# than a peer waits for a swarm without a word (peer.downloader.limits, stall_s): older news is none to wait for.
MOVED_LATELY_S: Final = 20.0


class Telling:
    """See the module. `delivery_port` is our own delivery's, 0 for none (supernode.control.delivery)."""

    def __init__(
        self,
        swarms: SwarmBook,
        nodes: NodeBook,
        identity: Identity,
        *,
        delivery_port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._swarms = swarms
        self._nodes = nodes
        self._identity = identity
        self._delivery_port = delivery_port
        self._clock = clock

    def introduce(self, link: Link, node: int) -> None:
        """Say who a node is, once a session."""
        if node in link.nodes_known:
            return
        if node == SEED_NODE:
            known = NodeKnown(SEED_NODE, peer_name(self._identity.peer), link.seed_address, self._seed_delivery(link))
        else:
            other = self._nodes.link(node)
            if other is None:
                return
            known = NodeKnown(node, peer_name(other.info.peer), other.info.address, other.info.delivery_address)
        link.nodes_known.add(node)
        link.send(known)

    def _seed_delivery(self, link: Link) -> str:
        if not self._delivery_port:
            return ""
        return str(HostPort(parse_host_port(link.seed_address).host, self._delivery_port))

    def send_hashes(self, link: Link, swarm: Swarm, member: Member, pieces: int = ALL_PIECES) -> None:
        """The known hashes of these pieces (mask) that this session does not know."""
        missing = swarm.hashes.known & ~member.hashes_sent & pieces
        for signed in swarm.hashes.signed_for(missing):
            link.send(PieceHashes(swarm.number, signed.first, signed.hashes, signed.signature))
            if len(signed.hashes) <= TOLD_RUN_MAX * HASH_BYTES:
                member.tells |= hashes_mask(signed)
        member.hashes_sent |= missing

    def send_opened(self, link: Link, swarm: Swarm, member: Member) -> None:
        """The answer to an announcement, with a ticket that is good for two hours."""
        member.ticket_renew_s = self._clock() + TICKET_LIFE_S / 2
        ticket = issue_ticket(self._identity, swarm.digest, link.info.peer, time.time() + TICKET_LIFE_S)
        size_bytes, piece_size_bytes = swarm.layout.size_bytes, swarm.layout.piece_size_bytes
        link.send(SwarmOpened(swarm.number, str(swarm.digest), size_bytes, piece_size_bytes, ticket))

    def send_holders(self, link: Link, swarm: Swarm, member: Member) -> None:
        """Whom to ask if this session is lost, if that changed."""
        nodes = swarm.holders_for(link.node)
        if nodes == member.holders_sent:
            return
        member.holders_sent = nodes
        for node in nodes:
            self.introduce(link, node)
        link.send(Holders(swarm.number, nodes))

    def send_origin_status(self, swarm: Swarm) -> None:
        """How the origin does, to every member that waits for the blob."""
        for node, member in swarm.members.items():
            link = self._nodes.link(node)
            if link is not None and member.wanted:
                link.send(OriginStatus(swarm.number, swarm.origin_state, node == swarm.elected))

    def refresh(self, link: Link) -> None:
        """What is repeated every few seconds for every swarm that this peer waits for, and what could wait till now."""
        untold, link.untold = link.untold, set()
        for number in sorted(untold):
            swarm = self._swarms.numbered(number)
            member = swarm.members.get(link.node) if swarm is not None else None
            if swarm is not None and member is not None:
                self.send_hashes(link, swarm, member)
        for number in list(link.wanting):
            swarm = self._swarms.numbered(number)
            member = swarm.members.get(link.node) if swarm is not None else None
            if swarm is None or member is None:
                link.wanting.discard(number)
                continue
            if swarm.origin_state:
                self._refresh_status(link, swarm, member)
            elif not member.failing and self._is_to_wait(link, swarm):
                link.send(OriginStatus(number, "sharing", swarm.elected == link.node))
            self.send_holders(link, swarm, member)
            if self._clock() >= member.ticket_renew_s:
                self.send_opened(link, swarm, member)

    def _refresh_status(self, link: Link, swarm: Swarm, member: Member) -> None:
        """A piece that it got meanwhile told it that we get on."""
        status = (swarm.origin_state, swarm.elected == link.node)
        before, member.status_sent = member.status_sent, (member.held, *status)
        if before is None or before[1:] != status or before[0] == member.held:
            link.send(OriginStatus(swarm.number, *status))

    def _is_to_wait(self, link: Link, swarm: Swarm) -> bool:
        """The swarm moves, and this peer has no lease to see that by: it would go upstream, with all its like."""
        if self._clock() - swarm.moved_s > MOVED_LATELY_S:
            return False
        return all(number != swarm.number for number, _, _ in link.leases.values())
