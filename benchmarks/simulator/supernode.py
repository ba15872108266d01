"""The simulated supernode: the production scheduler and the production control, on a clock instead of a loop.

Work is done one piece at a time and takes the settings' service time each, as on one core. Nothing is decided here:
sessions are channels, the store is benchmarks.simulator.seed, and that a blob is public takes one round trip to learn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from benchmarks.simulator.channel import PeerChannel
from benchmarks.simulator.checkers import listeners
from benchmarks.simulator.names import SOURCE, address_of, peer_id
from benchmarks.simulator.seed import Seed
from supernode.control.control import Control
from supernode.control.delivery import PieceDelivery
from supernode.control.notifier import REFRESH_INTERVALS
from supernode.control.peer_session import PeerInfo
from supernode.control.ports import ControlObserver, ControlPorts
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED
from supernode.state.base import SavedSwarm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.environment import Environment
    from benchmarks.simulator.peer import Peer
    from proto.ids import Digest, PeerId
    from proto.machine import Machine
    from proto.pieces import PieceLayout
    from proto.wire.messages import Announce, Message, Source
    from supernode.control.peer_session import PeerSession

_ANNOUNCED_MAX: Final = 20_000


class Supernode:
    """See the module. Implements supernode.control.message_handler.AnnouncementQueue."""

    def __init__(self, environment: Environment, machine: Machine[contract.Event, contract.Command]) -> None:
        self._environment = environment
        self._machine = machine
        # Work that waits for its turn, with its arguments; and the events that the work in hand gave rise to.
        self._inbox: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._events: deque[contract.Event] = deque()
        self._serving = self._gone = False
        self._timer: Call | None = None
        # Announcements of blobs whose origin is being asked whether they are public.
        self._waiting: dict[Digest, list[tuple[PeerSession, Announce]]] = {}
        seed = Seed(environment, self._queue, self.held_by_live)
        scenario, settings = environment.scenario, environment.settings
        uplink_bytes_s = (scenario.declared and scenario.supernode_bytes_s) or settings.uplink_assumed_bytes_s
        self._control = control = Control(
            ControlPorts(
                post=self._events.append,
                clock=lambda: environment.clock.now,
                unix_clock=lambda: environment.clock.now,
                signer=_StandInSigner(),
                seed=seed,
                state=_Forgetful(),
                observer=_Watcher(environment),
                delivery=PieceDelivery(),
                forget_public=lambda source, digest: None,
                uplink_rate=lambda: uplink_bytes_s,
                recover_until=0.0,
                seed_address=lambda _: address_of(SEED),
                seed_connected=lambda _: True,
                announced_max=_ANNOUNCED_MAX,
            )
        )
        seed.report_to(control.verification)
        self._seed = seed
        self._handler = control.message_handler(self)
        self._refresh_every_s = REFRESH_INTERVALS * settings.ping_interval_s
        environment.clock.run_after(self._refresh_every_s, self._refresh)

    def leave(self) -> None:
        """The process is no more: nothing is handled."""
        self._gone = True
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()

    # --- sessions ------------------------------------------------------------------------------------------------

    def join(self, peer: Peer, zone: str, up_bytes_s: float | None, down_bytes_s: float | None) -> PeerSession:
        """A session opened. One that the node had before, and that nobody knew to be over, ends now."""
        slots, node = self._environment.settings.slots, peer.node
        info = PeerInfo(
            peer_id(node), "boot", address_of(node), zone, slots, slots, up_bytes_s, down_bytes_s, "simulated"
        )
        session = self._handler.admit(PeerChannel(self._environment, peer, self._digest_of), info)
        self._queue(_nothing)
        return session

    def _digest_of(self, swarm: int) -> Digest:
        found = self._control.swarms.numbered(swarm)
        assert found is not None, f"swarm {swarm} is spoken of and not open"
        return found.digest

    def lost(self, session: PeerSession, reason: str) -> None:
        """The session is known to be over."""
        self._handler.lost(session, reason)
        self._queue(_nothing)

    def received(self, session: PeerSession, frame: list[Message]) -> None:
        """What a peer said in one turn of its loop arrived: one piece of work, however many messages."""
        self._queue(self._read, session, frame)

    def _read(self, session: PeerSession, frame: list[Message]) -> None:
        for message in frame:
            if self._control.nodes.session(session.node) is session:
                self._handler.received(session, message)

    def _refresh(self) -> None:
        """What goes with some frame of each session every few seconds."""
        if self._gone:
            return
        for session in self._control.nodes:
            self._handler.refresh(session)
        self._environment.clock.run_after(self._refresh_every_s, self._refresh)

    def held_by_live(self, digest: Digest) -> int:
        """Pieces (mask) that the control knows at whoever is still connected and not quarantined."""
        swarm, nodes = self._control.swarms.of(digest), self._control.nodes
        if swarm is None:
            return 0
        held = swarm.seed_held
        for session in nodes.sessions_of(swarm.members):
            if not nodes.is_quarantined(session.info.peer):
                held |= swarm.members[session.node].held
        return held

    # --- announcements -------------------------------------------------------------------------------------------

    def announce(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        """The first one of a blob has the origin asked whether it is public, which takes a round trip."""
        if self._control.swarms.of(digest) is not None:
            self._enter(session, digest, announce)
        elif digest in self._waiting:
            self._waiting[digest].append((session, announce))
        else:
            self._waiting[digest] = [(session, announce)]
            self._environment.clock.run_after(self._environment.settings.round_trip_s, self._queue, self._open, digest)

    def _open(self, digest: Digest) -> None:
        waiting = self._waiting.pop(digest)
        layout = self._environment.scenario.layout(self._environment.blobs[digest])
        # The scenario says how the blob is cut, and a cut from before is kept.
        cut = SavedSwarm(layout.size_bytes, layout.piece_size_bytes, vouched=False, sources=(), hashes=(), holders=())
        swarm = self._control.admission.open(digest, layout.size_bytes, cut, self._seed.look(digest, layout))
        if self._environment.scenario.origin.by_members:
            self._control.admission.make_private(swarm, (SOURCE.upstream,))
        for session, announce in waiting:
            self._queue(self._enter, session, digest, announce)

    def _enter(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        swarm = self._control.swarms.of(digest)
        if swarm is not None and self._control.nodes.session(session.node) is session:
            self._control.admission.enter(session, swarm, announce, (SOURCE,))
            self._control.participation.settle(swarm)

    def withdraw(self, session: PeerSession, digest: Digest) -> None:
        self._control.participation.leave(session, digest)

    # --- the machine -------------------------------------------------------------------------------------------

    def _queue(self, work: Callable[..., None], *arguments: object) -> None:
        if self._gone:
            return
        self._inbox.append((work, arguments))
        if not self._serving:
            self._serving = True
            self._environment.clock.run_after(self._environment.settings.service_s, self._serve)

    def _serve(self) -> None:
        if self._gone:
            return
        work, arguments = self._inbox.popleft()
        work(*arguments)
        while self._events:
            self._handle(self._events.popleft())
        if self._inbox:
            self._environment.clock.run_after(self._environment.settings.service_s, self._serve)
        else:
            self._serving = False

    def _handle(self, event: contract.Event) -> None:
        environment = self._environment
        now = environment.clock.now
        environment.trace.add(now, SEED, event)
        for command in self._machine.handle(event, now):
            environment.trace.add(now, SEED, command)
            self._control.commands.carry_out(command)
        due = self._machine.next_wakeup()
        if due is not None:
            self._set_timer(due)

    def _set_timer(self, due_s: float) -> None:
        """A timer that is due too early asks again; only a later one has to be brought forward."""
        if self._timer is not None:
            if self._timer.due_s <= due_s:
                return
            self._timer.cancel()
        self._timer = self._environment.clock.at(due_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        due_s = self._machine.next_wakeup()
        if due_s is not None and due_s > self._environment.clock.now:
            self._set_timer(due_s)
        elif due_s is not None and not self._serving:
            self._queue(self._events.append, contract.Wakeup())
        # Otherwise the event that is being served takes along what is due.


def _nothing() -> None:
    """Work that is done: what it gave rise to waits for its turn."""


class _StandInSigner:
    """Implements Signer. Nobody checks a signature here."""

    peer = peer_id(SEED)

    def ticket(self, digest: Digest, peer: PeerId) -> bytes:
        return b"ticket"

    def sign_hashes(self, digest: Digest, layout: PieceLayout, first: int, hashes: bytes) -> bytes:
        return b""


class _Forgetful:
    """Implements SwarmState: the simulated supernode never restarts."""

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None: ...
    def add_source(self, digest: Digest, source: Source) -> None: ...
    def add_private(self, digest: Digest, upstream: str) -> None: ...
    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None: ...
    def vouch(self, digest: Digest, hashes: bytes) -> None: ...
    def add_holder(self, digest: Digest, peer: PeerId) -> None: ...
    def remove_holder(self, digest: Digest, peer: PeerId) -> None: ...
    def forget_swarm(self, digest: Digest) -> None: ...


class _Watcher(ControlObserver):
    """Has the checkers look at what the control does."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._on_opened = listeners(environment.checkers, "origin_opened")

    def origin_opened(self, digest: Digest) -> None:
        for opened in self._on_opened:
            opened(self._environment.clock.now, self._environment.blobs[digest])
