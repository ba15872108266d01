"""The simulated supernode: the production scheduler, and what its driver, intake and seed do with it, without I/O.

Events are handled one at a time and take the settings' service time each, as on one core. Nothing is decided here.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.simulator.names import blob_of, digest_of, peer_id, swarm_of
from benchmarks.simulator.peer import UnexpectedCommand
from benchmarks.simulator.sessions import Session, Swarm
from peer.downloader.contract import InlineGranted, Received
from proto import messages
from proto.ids import Digest
from proto.messages import Grant, NodeKnown, OriginStatus
from proto.pieces import Bitfield, indices
from supernode.driver import INLINE_BYTES_MAX, INLINE_UPLINK_S
from supernode.nodes import NodeBook
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.peer import Peer
    from benchmarks.simulator.transport import Transfer
    from benchmarks.simulator.world import World
    from proto.machine import Machine


class Supernode:
    """See the module."""

    def __init__(self, world: World, machine: Machine[contract.Event, contract.Command]) -> None:
        self._world = world
        self._machine = machine
        self._endpoint = world.transport.endpoints[SEED]
        self._half_s = world.settings.round_trip_s / 2
        self._inbox: deque[Callable[[], contract.Event | None]] = deque()
        self._serving = False
        self._timer: Call | None = None
        # Who may accuse whom, and who is quarantined, is the production's book.
        self._book = NodeBook()
        self._sessions: dict[int, Session] = {}
        self._last_session = SEED
        self._swarms = {
            swarm_of(blob): Swarm(blob, world.scenario.layout(blob)) for blob in range(len(world.scenario.blobs))
        }
        self._seed_fetches: dict[int, Transfer] = {}
        world.clock.after(world.settings.ping_interval_s, self._ping)

    # --- sessions ------------------------------------------------------------------------------------------------

    def join(self, peer: Peer, zone: str, up_bytes_s: float | None, down_bytes_s: float | None) -> Session:
        """A session opened."""
        self._last_session += 1
        session = Session(self._last_session, peer)
        self._sessions[session.number] = session
        slots = self._world.settings.slots
        self.post(contract.PeerJoined(session.number, zone, slots, slots, up_bytes_s, down_bytes_s))
        return session

    def lost(self, session: Session, reason: str) -> None:
        """The session is known to be over."""
        if self._sessions.pop(session.number, None) is None:
            return
        for lease in list(session.leases):
            self._lease_over(session, lease)
        for swarm in self._swarms.values():
            swarm.members.pop(session.number, None)
        self.post(contract.PeerLost(session.number, reason))

    def _ping(self) -> None:
        """What goes with each ping to whoever waits for a blob that is still being fetched."""
        for number, swarm in self._swarms.items():
            if swarm.origin_state:
                for session, member in swarm.members.items():
                    if member.wanted:
                        self._tell_origin_status(self._sessions[session], number, swarm)
        self._world.clock.after(self._world.settings.ping_interval_s, self._ping)

    def held_by_live(self, swarm: int) -> int:
        """Pieces (mask) that the scheduler was told of by whoever is still connected and not quarantined."""
        found = self._swarms[swarm]
        held = found.seed_held
        for number, member in found.members.items():
            if not self._book.is_quarantined(peer_id(self._sessions[number].node)):
                held |= member.held
        return held

    # --- the machine -------------------------------------------------------------------------------------------

    def post(self, event: contract.Event) -> None:
        """Queue an event."""
        self._queue(lambda: event)

    def _queue(self, work: Callable[[], contract.Event | None]) -> None:
        """`work` is done when its turn comes, and gives the scheduler's event, if there is one."""
        self._inbox.append(work)
        if not self._serving:
            self._serving = True
            self._world.clock.after(self._world.settings.service_s, self._serve)

    def _serve(self) -> None:
        event = self._inbox.popleft()()
        if event is not None:
            self._handle(event)
        if self._inbox:
            self._world.clock.after(self._world.settings.service_s, self._serve)
        else:
            self._serving = False

    def _handle(self, event: contract.Event) -> None:
        world = self._world
        now = world.clock.now
        world.trace.add(now, SEED, event)
        for command in self._machine.handle(event, now):
            world.trace.add(now, SEED, command)
            self._carry_out(command)
        due = self._machine.next_wakeup()
        if self._timer is not None and self._timer.due_s == due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else world.clock.at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.post(contract.Wakeup())

    def _carry_out(self, command: contract.Command) -> None:
        match command:
            case contract.GrantLease():
                self._grant(command)
            case contract.CancelLease():
                self._cancel(command)
            case contract.FetchFromOrigin():
                self._fetch_from_origin(command)
            case contract.TryOrigin(swarm, peer):
                self._swarms[swarm].elected = peer
                self._set_origin_state(swarm, "unreachable")
            case contract.OpenOrigin(swarm):
                self._swarms[swarm].elected = None
                for checker in self._world.checkers:
                    checker.origin_opened(self._world.clock.now, blob_of(swarm))
                self._set_origin_state(swarm, "open")
            case contract.QuarantinePeer(peer):
                if peer in self._sessions:
                    self._book.quarantine(peer_id(self._sessions[peer].node))
            case _:
                raise UnexpectedCommand(f"scheduler: {command}")

    # --- what peers say ----------------------------------------------------------------------------------------

    def received(self, session: Session, message: messages.Message) -> None:
        """A message arrived."""
        self._queue(lambda: self._read(session, message))

    def _read(self, session: Session, message: messages.Message) -> contract.Event | None:
        if session.number not in self._sessions:
            return None
        match message:
            case messages.Stored():
                return self._stored(session, message)
            case messages.Failed():
                return self._failed(session, message)
            case messages.ReaderMoved(swarm, piece):
                return contract.ReaderMoved(swarm, session.number, None if piece == messages.NO_READER else piece)
            case messages.Announce():
                return self._announced(session, message)
            case messages.BlobChecked(swarm, True):
                self._swarms[swarm].members[session.number].wanted = False
            case messages.OriginTried():
                return self._origin_tried(session, message)
            case messages.Withdraw(digest):
                return self._withdrew(session, digest)
            case _:
                raise UnexpectedCommand(f"node {session.node} says {message}")
        return None

    def _stored(self, session: Session, stored: messages.Stored) -> contract.Event | None:
        swarm = self._swarms[stored.swarm]
        member = swarm.members.get(session.number)
        if member is None:
            return None
        lease = stored.lease if self._lease_over(session, stored.lease) is not None else 0
        if not swarm.hashes >> stored.piece & 1:
            member.unproven |= 1 << stored.piece
            return self._headway(session, swarm, stored.swarm)
        member.held |= 1 << stored.piece
        return contract.PieceStored(stored.swarm, session.number, stored.piece, lease, stored.elapsed_ms / 1000)

    def _headway(self, session: Session, swarm: Swarm, number: int) -> contract.Event | None:
        return contract.OriginHeadway(number, session.number) if swarm.elected == session.number else None

    def _failed(self, session: Session, failed: messages.Failed) -> contract.Event | None:
        source = self._lease_over(session, failed.lease)
        if source is None:
            return None
        reason = FailReason(failed.reason)
        if reason is FailReason.CORRUPT and source in self._sessions:
            accused = peer_id(self._sessions[source].node)
            if not self._book.may_accuse(peer_id(session.node), accused):
                reason = FailReason.PROTOCOL
        return contract.FetchFailed(failed.lease, reason)

    def _lease_over(self, session: Session, lease: int) -> int | None:
        """Forget it; its source, or None where it was over already."""
        source = session.leases.pop(lease, None)
        if source is not None:
            self._tell_lease_ended(lease)
        return source

    def _tell_lease_ended(self, lease: int) -> None:
        for checker in self._world.checkers:
            checker.lease_ended(self._world.clock.now, lease)

    def _announced(self, session: Session, message: messages.Announce) -> contract.Event | None:
        """The first one has the origin asked whether the blob is public, which takes a round trip."""
        number = self._number(message.digest)
        swarm = self._swarms[number]
        if swarm.opened:
            return self._enter(session, number, message)
        swarm.waiting.append((session, message))
        if swarm.opened is None:
            swarm.opened = False
            self._world.clock.after(self._world.settings.round_trip_s, lambda: self._queue(partial(self._open, number)))
        return None

    def _number(self, digest: str) -> int:
        parsed = Digest.parse(digest)
        return next(number for number in self._swarms if digest_of(blob_of(number)) == parsed)

    def _open(self, number: int) -> contract.Event:
        swarm = self._swarms[number]
        swarm.opened = True
        waiting, swarm.waiting = swarm.waiting, []
        for session, message in waiting:
            self._queue(partial(self._enter, session, number, message))
        swarm.inline = swarm.layout.size_bytes <= INLINE_BYTES_MAX and self._fits_inline(swarm, 1)
        return contract.SwarmOpened(number, swarm.layout.size_bytes, swarm.layout.piece_size_bytes, inline=swarm.inline)

    def _fits_inline(self, swarm: Swarm, waiting: int) -> bool:
        """As supernode.driver counts it."""
        scenario, settings = self._world.scenario, self._world.settings
        rate_bytes_s = (scenario.declared and scenario.supernode_bytes_s) or settings.uplink_assumed_bytes_s
        return waiting * swarm.layout.size_bytes <= rate_bytes_s * INLINE_UPLINK_S

    def _enter(self, session: Session, number: int, message: messages.Announce) -> contract.Event | None:
        if session.number not in self._sessions:
            return None
        swarm = self._swarms[number]
        layout = swarm.layout
        held = Bitfield.from_bytes(message.held, layout.count).mask if message.held else 0
        if self._book.is_quarantined(peer_id(session.node)):
            held = 0
        if message.hashes and not self._book.is_quarantined(peer_id(session.node)):
            for piece in indices(layout.full_mask & ~swarm.hashes):
                self._learn_hash(swarm, number, piece)
        member = swarm.join(session.number)
        member.wanted = message.wanted
        member.held, member.unproven = held & swarm.hashes, held & ~swarm.hashes
        self._tell(
            session,
            messages.SwarmOpened(number, message.digest, layout.size_bytes, layout.piece_size_bytes, b"ticket"),
        )
        if message.wanted:
            self._send_hashes(session, number, swarm)
        if message.hashes and swarm.elected == session.number:
            swarm.elected = None
            self.post(contract.OriginTried(number, session.number, True))
        return contract.PeerAnnounced(number, session.number, member.held, message.wanted)

    def _withdrew(self, session: Session, digest: str) -> contract.Event | None:
        number = self._number(digest)
        if self._swarms[number].members.pop(session.number, None) is None:
            return None
        return contract.PeerWithdrew(number, session.number)

    def _origin_tried(self, session: Session, tried: messages.OriginTried) -> contract.Event | None:
        swarm = self._swarms[tried.swarm]
        member = swarm.members.get(session.number)
        if member is None or swarm.elected != session.number:
            return None
        if not tried.reason and member.unproven and member.held | member.unproven == swarm.layout.full_mask:
            return contract.OriginHeadway(tried.swarm, session.number)
        swarm.elected = None
        return contract.OriginTried(tried.swarm, session.number, not tried.reason)

    # --- what peers are told -----------------------------------------------------------------------------------

    def _grant(self, grant: contract.GrantLease) -> None:
        number, receiver, source = grant.lease_id, grant.receiver, grant.source
        session, giving = self._sessions.get(receiver), self._sessions.get(source)
        if receiver != SEED and (session is None or receiver not in self._swarms[grant.swarm].members):
            return  # its PeerLost or PeerWithdrew is in the inbox
        if source != SEED:
            reason = FailReason.CONNECTION if giving is None else None
            if giving is not None and self._book.is_quarantined(peer_id(giving.node)):
                reason = FailReason.CORRUPT
            if reason is not None:
                self.post(contract.FetchFailed(number, reason))
                return
        if receiver == SEED:
            self._fetch_for_seed(grant)
        elif session is not None:
            session.leases[number] = source
            self._send_grant(session, grant)

    def _node(self, session: int) -> int:
        """Where a session runs."""
        return self._sessions[session].node if session != SEED else SEED

    def _tell_granted(self, grant: contract.GrantLease) -> None:
        source, receiver = self._node(grant.source), self._node(grant.receiver)
        for checker in self._world.checkers:
            checker.granted(self._world.clock.now, grant.lease_id, source, receiver)

    def _send_grant(self, session: Session, grant: contract.GrantLease) -> None:
        swarm = self._swarms[grant.swarm]
        self._send_hashes(session, grant.swarm, swarm)
        if grant.inline and self._fits_inline(swarm, sum(member.wanted for member in swarm.members.values())):
            # It travels as a message and takes no slot.
            self._send_inline(session, grant)
            return
        self._tell_granted(grant)
        if grant.source not in session.known:
            session.known[grant.source] = None
            # The identity is the node's, whatever number its session has.
            node = self._node(grant.source)
            self._tell(session, NodeKnown(grant.source, peer_id(node), f"node-{node}:65002"))
        expires_ms = max(1, int(grant.expires_in_s * 1000))
        self._tell(session, Grant(grant.lease_id, grant.swarm, grant.piece, grant.source, expires_ms, grant.ahead))

    def _send_inline(self, session: Session, grant: contract.GrantLease) -> None:
        """The content itself, over the supernode's uplink like any other bytes."""
        world, peer, blob = self._world, session.peer, blob_of(grant.swarm)
        size = self._swarms[grant.swarm].layout.size_bytes
        to = world.transport.endpoints[session.node]

        def arrived() -> None:
            to.received_bytes += size
            world.transport.seed_bytes += size
            if not to.alive:
                return
            to.held[blob] = 1
            for checker in world.checkers:
                checker.arrived(world.clock.now, session.node, blob, 0, size)
            peer.post(InlineGranted(grant.lease_id, grant.swarm))

        def sent() -> None:
            self._endpoint.sent_bytes += size
            to.air_bytes += size
            world.clock.after(self._half_s, landed)

        def landed() -> None:
            to.air_bytes -= size
            arrived()

        world.links.start(world.network.path(SEED, session.node), float(size), sent)

    def _send_hashes(self, session: Session, number: int, swarm: Swarm) -> None:
        member = swarm.members[session.number]
        missing = swarm.hashes & ~member.hashes_sent
        if missing:
            member.hashes_sent = swarm.hashes
            peer, blob = session.peer, blob_of(number)
            self._world.clock.after(self._half_s, lambda: peer.learn_hashes(blob, missing))

    def _cancel(self, command: contract.CancelLease) -> None:
        if command.receiver == SEED:
            transfer = self._seed_fetches.get(command.lease_id)
            if transfer is not None:
                self._tell_lease_ended(command.lease_id)
                self._world.transport.cancel(transfer)
            return
        session = self._sessions.get(command.receiver)
        if session is not None and self._lease_over(session, command.lease_id) is not None:
            self._tell(session, messages.Cancel(command.lease_id))

    def _set_origin_state(self, number: int, state: str) -> None:
        swarm = self._swarms[number]
        swarm.origin_state = state
        if state == "fetching":
            return  # goes with the next ping
        for session, member in swarm.members.items():
            if member.wanted:
                self._tell_origin_status(self._sessions[session], number, swarm)

    def _tell_origin_status(self, session: Session, number: int, swarm: Swarm) -> None:
        self._tell(session, OriginStatus(number, swarm.origin_state, swarm.elected == session.number))

    def _tell(self, session: Session, message: messages.Message) -> None:
        peer = session.peer
        self._world.clock.after(self._half_s, lambda: peer.post(Received(message)))

    # --- the seed ----------------------------------------------------------------------------------------------

    def _fetch_for_seed(self, grant: contract.GrantLease) -> None:
        swarm = self._swarms[grant.swarm]
        self._tell_granted(grant)

        def ended(reason: str, elapsed_s: float) -> None:
            del self._seed_fetches[grant.lease_id]
            self._tell_lease_ended(grant.lease_id)
            if reason:
                self.post(contract.FetchFailed(grant.lease_id, FailReason(reason)))
            else:
                swarm.seed_held |= 1 << grant.piece
                self.post(contract.PieceStored(grant.swarm, SEED, grant.piece, grant.lease_id, elapsed_s))

        self._seed_fetches[grant.lease_id] = self._world.transport.fetch(
            SEED, self._node(grant.source), swarm.blob, grant.piece, grant.expires_in_s, ended
        )

    def _fetch_from_origin(self, command: contract.FetchFromOrigin) -> None:
        world, swarm = self._world, self._swarms[command.swarm]
        swarm.elected = None
        self._set_origin_state(command.swarm, "fetching")
        for checker in world.checkers:
            checker.origin_asked(world.clock.now, swarm.blob, command.pieces, self.held_by_live(command.swarm))

        def stored(piece: int) -> None:
            for checker in world.checkers:
                checker.arrived(world.clock.now, SEED, swarm.blob, piece, swarm.layout.length(piece))
                checker.claimed(world.clock.now, SEED, swarm.blob, piece)
            swarm.seed_held |= 1 << piece
            self._learn_hash(swarm, command.swarm, piece)
            self.post(contract.PieceStored(command.swarm, SEED, piece))

        def ended(reason: str) -> None:
            if not reason:
                swarm.origin_state = ""
            for checker in world.checkers:
                checker.origin_ended(world.clock.now, swarm.blob, command.pieces)
            self.post(contract.OriginEnded(command.fetch_id, command.swarm, not reason))

        pieces = deque(indices(command.pieces))
        patience = world.origin.supernode_patience()
        world.origin.fetch(self._endpoint, swarm.blob, pieces, patience, stored, ended)

    def _learn_hash(self, swarm: Swarm, number: int, piece: int) -> None:
        """Whoever said that it holds the piece is believed now."""
        if swarm.hashes >> piece & 1:
            return
        swarm.hashes |= 1 << piece
        for session, member in swarm.members.items():
            if member.unproven >> piece & 1:
                member.unproven ^= 1 << piece
                member.held |= 1 << piece
                self.post(contract.PieceStored(number, session, piece))
