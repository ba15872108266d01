"""The simulated supernode: the production scheduler, and what its driver and intake do with it, without I/O.

Events are handled one at a time and take the settings' service time each, as on one core. Nothing is decided here; what
it fetches itself is benchmarks.simulator.seed's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from benchmarks.simulator.checkers import told
from benchmarks.simulator.errors import UnexpectedCommand
from benchmarks.simulator.names import blob_of, digest_of, swarm_of
from benchmarks.simulator.outbox import Outbox
from benchmarks.simulator.seed import Seed
from benchmarks.simulator.sessions import Session, Swarm
from proto.ids import Digest
from proto.pieces import Bitfield, indices
from proto.wire import messages
from supernode.control.node_registry import NodeRegistry
from supernode.control.notifier import MOVED_LATELY_S
from supernode.control.swarm_registry import INLINE_BYTES_MAX
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.peer import Peer
    from benchmarks.simulator.world import World
    from proto.machine import Machine


class Supernode:
    """See the module."""

    def __init__(self, world: World, machine: Machine[contract.Event, contract.Command]) -> None:
        self._world = world
        self._machine = machine
        self._outbox = Outbox(world)
        self._tell_ended = told(world.checkers, "lease_ended")
        # Work that waits for its turn, with its arguments; it gives the scheduler's event, if there is one.
        self._inbox: deque[tuple[Callable[..., contract.Event | None], tuple[object, ...]]] = deque()
        self._serving = False
        self._timer: Call | None = None
        # Who may accuse whom, and who is quarantined, is the production's book.
        self._book = NodeRegistry()
        self._sessions: dict[int, Session] = {}
        self._last_session = SEED
        self._swarms = {
            swarm_of(blob): Swarm(blob, world.scenario.layout(blob)) for blob in range(len(world.scenario.blobs))
        }
        self._seed = Seed(world, self.post, self._learn_hash, self._tell_lease_ended)
        world.clock.run_after(world.settings.ping_interval_s, self._ping)

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
        """What goes with each ping to whoever waits for a blob that is still being fetched, or is shared without it."""
        now = self._world.clock.now
        for number, swarm in self._swarms.items():
            if swarm.origin_state:
                self._tell_origin_state(number, swarm)
            elif now - swarm.moved_s <= MOVED_LATELY_S:
                self._tell_sharing(number, swarm)
        self._world.clock.run_after(self._world.settings.ping_interval_s, self._ping)

    def held_by_live(self, swarm: int) -> int:
        """Pieces (mask) that the scheduler was told of by whoever is still connected and not quarantined."""
        found = self._swarms[swarm]
        held = found.seed_held
        for number, member in found.members.items():
            if not self._book.is_quarantined(self._sessions[number].peer_id):
                held |= member.held
        return held

    # --- the machine -------------------------------------------------------------------------------------------

    def post(self, event: contract.Event) -> None:
        """Queue an event."""
        self._queue(_itself, event)

    def _queue(self, work: Callable[..., contract.Event | None], *args: object) -> None:
        self._inbox.append((work, args))
        if not self._serving:
            self._serving = True
            self._world.clock.run_after(self._world.settings.service_s, self._serve)

    def _serve(self) -> None:
        work, args = self._inbox.popleft()
        event = work(*args)
        if event is not None:
            self._handle(event)
        if self._inbox:
            self._world.clock.run_after(self._world.settings.service_s, self._serve)
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
        if due is not None:
            self._set_timer(due)

    def _set_timer(self, due_s: float) -> None:
        """A timer that is due too early asks again; only a later one has to be brought forward."""
        if self._timer is not None:
            if self._timer.due_s <= due_s:
                return
            self._timer.cancel()
        self._timer = self._world.clock.at(due_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        due_s = self._machine.next_wakeup()
        if due_s is not None and due_s > self._world.clock.now:
            self._set_timer(due_s)
        elif due_s is not None and not self._serving:
            self.post(contract.Wakeup())
        # Otherwise the event that is being served takes along what is due.

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
                    self._book.quarantine(self._sessions[peer].peer_id)
            case _:
                raise UnexpectedCommand(f"scheduler: {command}")

    # --- what peers say ----------------------------------------------------------------------------------------

    def received(self, session: Session, frame: list[messages.Message]) -> None:
        """What a peer said in one turn of its loop arrived: one event, however many messages."""
        self._queue(self._read_all, session, frame)

    def _read_all(self, session: Session, frame: list[messages.Message]) -> None:
        for message in frame:
            event = self._read(session, message)
            if event is not None:
                self._handle(event)

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
        if not (member.held | member.unproven) >> stored.piece & 1:
            swarm.moved_s = self._world.clock.now
        if not swarm.hashes >> stored.piece & 1:
            member.unproven |= 1 << stored.piece
            elected = swarm.elected == session.number
            return contract.OriginHeadway(stored.swarm, session.number) if elected else None
        member.held |= 1 << stored.piece
        return contract.PieceStored(stored.swarm, session.number, stored.piece, lease, stored.elapsed_ms / 1000)

    def _failed(self, session: Session, failed: messages.Failed) -> contract.Event | None:
        source = self._lease_over(session, failed.lease)
        if source is None:
            return None
        reason = FailReason(failed.reason)
        if reason is FailReason.CORRUPT and source in self._sessions:
            accused = self._sessions[source].peer_id
            if not self._book.may_accuse(session.peer_id, accused):
                reason = FailReason.PROTOCOL
        return contract.FetchFailed(failed.lease, reason)

    def _lease_over(self, session: Session, lease: int) -> int | None:
        """Forget it; its source, or None where it was over already."""
        _, source = session.leases.pop(lease, (0, None))
        if source is not None:
            self._tell_lease_ended(lease)
        return source

    def _tell_lease_ended(self, lease: int) -> None:
        for ended in self._tell_ended:
            ended(self._world.clock.now, lease)

    def _announced(self, session: Session, message: messages.Announce) -> contract.Event | None:
        """The first one has the origin asked whether the blob is public, which takes a round trip."""
        number = self._number(message.digest)
        swarm = self._swarms[number]
        if swarm.opened:
            return self._enter(session, number, message)
        swarm.waiting.append((session, message))
        if swarm.opened is None:
            swarm.opened = False
            self._world.clock.run_after(self._world.settings.round_trip_s, self._queue, self._open, number)
        return None

    def _number(self, digest: str) -> int:
        parsed = Digest.parse(digest)
        return next(number for number in self._swarms if digest_of(blob_of(number)) == parsed)

    def _open(self, number: int) -> contract.Event:
        swarm = self._swarms[number]
        swarm.opened = True
        waiting, swarm.waiting = swarm.waiting, []
        for session, message in waiting:
            self._queue(self._enter, session, number, message)
        swarm.inline = swarm.layout.size_bytes <= INLINE_BYTES_MAX and self._outbox.fits_inline(swarm, 1)
        return contract.SwarmOpened(number, swarm.layout.size_bytes, swarm.layout.piece_size_bytes, inline=swarm.inline)

    def _enter(self, session: Session, number: int, message: messages.Announce) -> contract.Event | None:
        if session.number not in self._sessions:
            return None
        swarm = self._swarms[number]
        layout = swarm.layout
        held = Bitfield.from_bytes(message.held, layout.count).mask if message.held else 0
        if self._book.is_quarantined(session.peer_id):
            held = 0
        if message.hashes and not self._book.is_quarantined(session.peer_id):
            for piece in indices(layout.full_mask & ~swarm.hashes):
                self._learn_hash(swarm, number, piece)
        member = swarm.join(session.number)
        member.wanted = message.wanted
        member.held, member.unproven = held & swarm.hashes, held & ~swarm.hashes
        self._outbox.tell(
            session,
            messages.SwarmOpened(number, message.digest, layout.size_bytes, layout.piece_size_bytes, b"ticket"),
        )
        if message.wanted:
            self._outbox.hashes(session, number, swarm)
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

    # --- what peers are told -----------------------------------------------------------------------------------

    def _grant(self, grant: contract.GrantLease) -> None:
        number, receiver, source = grant.lease_id, grant.receiver, grant.source
        session, giving = self._sessions.get(receiver), self._sessions.get(source)
        if receiver != SEED and (session is None or receiver not in self._swarms[grant.swarm].members):
            return  # its PeerLost or PeerWithdrew is in the inbox
        if source != SEED:
            reason = FailReason.CONNECTION if giving is None else None
            if giving is not None and self._book.is_quarantined(giving.peer_id):
                reason = FailReason.CORRUPT
            if reason is not None:
                self.post(contract.FetchFailed(number, reason))
                return
        if receiver == SEED:
            self._outbox.granted(number, self._node(source), SEED)
            self._seed.fetch_from_peer(grant, self._swarms[grant.swarm], self._node(source))
        elif session is not None:
            session.leases[number] = (grant.swarm, source)
            self._outbox.grant(session, self._swarms[grant.swarm], grant, self._node(source))

    def _node(self, session: int) -> int:
        """Where a session runs."""
        return self._sessions[session].node if session != SEED else SEED

    def _cancel(self, command: contract.CancelLease) -> None:
        if command.receiver == SEED:
            self._seed.cancel(command.lease_id)
            return
        session = self._sessions.get(command.receiver)
        if session is not None and self._lease_over(session, command.lease_id) is not None:
            self._outbox.tell(session, messages.Cancel(command.lease_id))

    def _fetch_from_origin(self, command: contract.FetchFromOrigin) -> None:
        swarm = self._swarms[command.swarm]
        swarm.elected = None
        self._set_origin_state(command.swarm, "fetching")
        self._seed.fetch_from_origin(command, swarm, self.held_by_live(command.swarm))

    def _set_origin_state(self, number: int, state: str) -> None:
        swarm = self._swarms[number]
        swarm.origin_state = state
        if state != "fetching":  # that goes with the next ping
            self._tell_origin_state(number, swarm)

    def _tell_origin_state(self, number: int, swarm: Swarm) -> None:
        for session, member in swarm.members.items():
            if member.wanted:
                self._outbox.origin_status(self._sessions[session], number, swarm)

    def _tell_sharing(self, number: int, swarm: Swarm) -> None:
        for node, member in swarm.members.items():
            session = self._sessions[node]
            if member.wanted and all(leased != number for leased, _ in session.leases.values()):
                self._outbox.sharing(session, number, swarm)


def _itself(event: contract.Event) -> contract.Event:
    """The work of an event that is ready."""
    return event
