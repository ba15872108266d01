"""Carries out what the scheduler decides: messages to peers, work for the supernode's own store.

Pure: no socket, no disk. One class for the service and the simulator, which give it
other channels, another store and another clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peer.transport.base import PieceSource
from proto.ids import peer_name
from proto.pieces import mask_of
from proto.wire.messages import Cancel, Grant, InlineBlob
from supernode.control.peer_session import wire_lease
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.offers import Offers
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.participation import Participation
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.swarm_registry import SwarmRegistry


@dataclass(eq=False, slots=True)
class CommandHandler:
    """One a supernode."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _notifier: Notifier
    _participation: Participation
    _offers: Offers

    def carry_out(self, command: contract.Command) -> None:
        """One command; what follows from it is posted."""
        match command:
            case contract.GrantLease():
                self._grant(command)
            case contract.CancelLease():
                self._cancel(command)
            case contract.FetchFromOrigin():
                self._fetch_from_origin(command)
            case contract.EndFetch():
                self._end_fetch(command)
            case contract.TryOrigin():
                self._elect(command.swarm, command.peer, command.pieces)
            case contract.OpenOrigin():
                self._elect(command.swarm, None, 0)

    # --- leases ------------------------------------------------------------------------------------------------

    def _grant(self, grant: contract.GrantLease) -> None:
        swarm = self._swarms.numbered(grant.swarm)
        if swarm is None:
            return
        if grant.receiver == SEED:
            self._grant_to_seed(swarm, grant)
            return
        session = self._nodes.session(grant.receiver)
        member = swarm.members.get(grant.receiver)
        if session is None or member is None:
            return  # its PeerLost or PeerWithdrew is on the way
        if grant.source == SEED:
            source = self._ports.signer.peer
        elif (standing := self._standing_source(grant)) is not None:
            source = standing.info.peer
        else:
            return
        claim = swarm.claims.of(grant.piece)
        claimed_hash = claim.piece_hash if claim is not None else b""
        number = session.add_lease(grant, claimed_hash)
        content = swarm.content
        if grant.inline and content is not None and swarm.fits_inline(swarm.wanted_by, self._ports.uplink_rate()):
            self._ports.observer.lease_granted(grant.lease_id, source, session.info.peer, inline=True)
            session.send(InlineBlob(number, swarm.number, content))
            return
        self._ports.observer.lease_granted(grant.lease_id, source, session.info.peer, inline=False)
        claimed = member.unproven >> grant.piece & 1
        if claimed or not swarm.source_sends_hash(grant.source, grant.piece):
            # Who claimed it, and is not believed, has to compare what it has before it says so again.
            self._notifier.send_hashes(session, swarm, member, 1 << grant.piece)
        self._notifier.introduce(session, grant.source)
        expires_ms = max(1, int(grant.expires_in_s * 1000))
        behind = wire_lease(grant.behind)
        session.send(
            Grant(number, swarm.number, grant.piece, grant.source, expires_ms, grant.ahead, behind, claimed_hash)
        )

    def _standing_source(self, grant: contract.GrantLease) -> PeerSession | None:
        """The source, where it is still there and trusted; if not, the lease fails at once."""
        source = self._nodes.session(grant.source)
        if source is not None and not self._nodes.is_quarantined(source.info.peer):
            return source
        # Its PeerLost or PeerQuarantined is on the way.
        self._ports.post(contract.FetchFailed(grant.lease_id, FailReason.CANCELLED))
        return None

    def _grant_to_seed(self, swarm: OpenSwarm, grant: contract.GrantLease) -> None:
        source = self._standing_source(grant)
        if source is None:
            return
        piece_hash = swarm.hashes.hash_of(grant.piece)
        if piece_hash is None:
            self._ports.post(contract.FetchFailed(grant.lease_id, FailReason.CANCELLED))
            return
        self._ports.observer.lease_granted(grant.lease_id, source.info.peer, self._ports.signer.peer, inline=False)
        name = peer_name(source.info.peer)
        where = PieceSource(name, source.info.address, swarm.private)
        self._ports.seed.fetch_from_peer(grant, swarm, piece_hash, source.info.peer, where)

    def _cancel(self, command: contract.CancelLease) -> None:
        self._ports.observer.lease_ended(command.lease_id, "expired" if "expir" in command.reason else "cancelled")
        if command.receiver == SEED:
            self._ports.seed.cancel_fetch(command.lease_id)
            return
        session = self._nodes.session(command.receiver)
        number = wire_lease(command.lease_id)
        if session is not None and session.leases.pop(number, None) is not None:
            session.send(Cancel(number))

    # --- the origin --------------------------------------------------------------------------------------------

    def _fetch_from_origin(self, command: contract.FetchFromOrigin) -> None:
        swarm = self._swarms.numbered(command.swarm)
        if swarm is None:
            return
        offers = self._offers.of(swarm, command.pieces)
        in_vain = swarm.seed_out_of_reach or (swarm.private and not self._ports.has_login(swarm.sources[0].upstream))
        if in_vain and command.pieces & ~mask_of(offers):
            # Nobody would have it from us, or we have no login: one of those who want it is elected, and shares what it
            # gets.
            self._ports.post(contract.OriginEnded(command.fetch_id, command.swarm, False))
            return
        # Members hear of it with the frames that leave anyway, see Notifier.refresh().
        givers = frozenset(offer.peer for found in offers.values() for offer in found)
        swarm.fetch_began(command.fetch_id, command.pieces, givers)
        self._ports.seed.fetch_from_origin(command.fetch_id, swarm, command.pieces, offers)

    def _end_fetch(self, command: contract.EndFetch) -> None:
        swarm = self._swarms.numbered(command.swarm)
        if swarm is not None and command.fetch_id in swarm.fetches:
            swarm.fetches_ending.add(command.fetch_id)
            self._ports.seed.end_origin(command.fetch_id)

    def _elect(self, number: int, node: int | None, pieces: int) -> None:
        swarm = self._swarms.numbered(number)
        if swarm is not None:
            if node is None:
                self._ports.observer.origin_opened(swarm.digest)
            else:
                self._ports.observer.node_elected()
            swarm.elect(node, pieces)
            self._notifier.send_origin_status(swarm)
