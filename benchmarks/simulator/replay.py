"""Feeds the event log of a real supernode to a fresh production scheduler and proves that it decides the same again.

It follows what the events say happened, for people who ask; it decides nothing and prints nothing.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.pieces import PieceLayout
from supernode.event_log.format import CommandsDigest, SchedulerParameters
from supernode.scheduler import contract, invariants

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.event_log.format import Handled, Header, Reader, Record
    from supernode.scheduler.contract import Command, Event
    from supernode.scheduler.machine import Scheduler

# Happenings kept of a swarm while a story is wanted; a service keeps fewer. They decide nothing.
STORY_LENGTH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the replay first left the recording. `recorded` and `replayed`: commands, None where handle() raised.

    `event` counts from 1 within the record, 0 if no single one differs though the digests do.
    """

    record: int
    event: int
    handled: Handled | None
    replayed: list[Command] | None
    error: str = ""

    @property
    def recorded(self) -> list[Command] | None:
        """What the supernode's own scheduler answered."""
        return None if self.handled is None else self.handled.commands


@dataclass(slots=True)
class SwarmPast:
    """What became of one swarm. Times are seconds of the log's clock; `completed_s` counts from its opening."""

    number: int
    layout: PieceLayout
    opened_s: float
    stored_pieces: int = 0
    completed_s: list[float] = field(default_factory=list)
    # What each peer holds at this point of the log, and who of them still wants the rest.
    held: dict[int, int] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)

    def hold(self, peer: int, pieces: int, now: float) -> None:
        """The peer holds these (mask)."""
        self.held[peer] = pieces
        if peer in self.waiting and pieces == self.layout.full_mask:
            self.waiting.discard(peer)
            self.completed_s.append(now - self.opened_s)

    def forget(self, peer: int) -> None:
        """The peer neither holds nor wants anything of it."""
        self.held.pop(peer, None)
        self.waiting.discard(peer)


class Past:
    """What the events of a log say, followed one by one."""

    def __init__(self) -> None:
        self.swarms: dict[int, SwarmPast] = {}
        self.peers: set[int] = set()
        self.stored_pieces = 0

    def follow(self, event: Event, now: float) -> None:
        """Take in one event."""
        match event:
            case contract.PieceStored():
                self._stored(event, now)
            case contract.PeerAnnounced():
                self._announced(event, now)
            case contract.PeerJoined():
                self.peers.add(event.peer)
            case contract.SwarmOpened():
                layout = PieceLayout(event.size_bytes, event.piece_size_bytes)
                self.swarms.setdefault(event.swarm, SwarmPast(event.swarm, layout, now))
            case contract.PeerLost():
                for swarm in self.swarms.values():
                    swarm.forget(event.peer)
            case contract.PieceEvicted() | contract.PeerWithdrew() | contract.SwarmVoided() | contract.SwarmClosed():
                if event.swarm in self.swarms:
                    _shrink(self.swarms[event.swarm], event)
            case _:
                pass

    def _announced(self, event: contract.PeerAnnounced, now: float) -> None:
        swarm = self.swarms.get(event.swarm)
        if swarm is None:
            return
        if not event.wanted:
            swarm.waiting.discard(event.peer)
        elif event.held != swarm.layout.full_mask:
            swarm.waiting.add(event.peer)
        swarm.hold(event.peer, event.held, now)

    def _stored(self, event: contract.PieceStored, now: float) -> None:
        swarm = self.swarms.get(event.swarm)
        if swarm is None or event.peer not in swarm.held or not 0 <= event.piece < swarm.layout.count:
            return
        held = swarm.held[event.peer]
        # Where two sources raced, both may have arrived.
        if not held >> event.piece & 1:
            self.stored_pieces += 1
            swarm.stored_pieces += 1
            swarm.hold(event.peer, held | 1 << event.piece, now)


def _shrink(
    swarm: SwarmPast,
    event: contract.PieceEvicted | contract.PeerWithdrew | contract.SwarmVoided | contract.SwarmClosed,
) -> None:
    if isinstance(event, contract.PieceEvicted):
        if event.peer in swarm.held:
            swarm.held[event.peer] &= ~event.pieces
    elif isinstance(event, contract.PeerWithdrew):
        swarm.forget(event.peer)
    else:
        swarm.held.clear()
        swarm.waiting.clear()


@dataclass(slots=True)
class Replay:
    """What a replay found. It gave the same commands exactly if `difference` is None."""

    header: Header
    past: Past = field(default_factory=Past)
    records: int = 0
    events: int = 0
    began_s: float | None = None
    ended_s: float = 0.0
    # Why the log ends, as the recorder wrote it; empty: it was cut off.
    ended: str = ""
    digest: bytes = b""
    counters: dict[str, int] = field(default_factory=dict)
    handles_ns: array[int] = field(default_factory=lambda: array("q"))
    checks: int = 0
    difference: Difference | None = None
    # The invariant that is broken, and where; or where the machine broke, here as in the recording.
    broken: str = ""
    story: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """From the first event to the last."""
        return 0.0 if self.began_s is None else self.ended_s - self.began_s


class Replayer:
    """One replay of one log.

    `check_every`: look at the invariants after so many events (1: after each, 0: never). `story`: (swarm, piece) to
    tell about. The factory exists so that tests can put another machine in.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        check_every: int = 0,
        story: tuple[int, int] | None = None,
        make_scheduler: Callable[[SchedulerParameters], Scheduler] = SchedulerParameters.build,
    ) -> None:
        self._reader = reader
        self._check_every = check_every
        self._about = story
        parameters = reader.header.parameters
        if story is not None:
            settings = dataclasses.replace(parameters.settings, story_length=STORY_LENGTH)
            parameters = dataclasses.replace(parameters, settings=settings)
        self._scheduler = make_scheduler(parameters)
        self._digest = CommandsDigest()
        self._found = Replay(reader.header)

    def run(self) -> Replay:
        """To the end of the log, or to the first difference or broken rule. Raises LocalError if it is damaged."""
        found = self._found
        for record in self._reader:
            found.records = record.number
            if not self._replayed(record):
                break
        found.ended = self._reader.ended
        found.counters = dict(self._scheduler.counters)
        found.digest = self._digest.digest()
        self._tell()
        return found

    def _replayed(self, record: Record) -> bool:
        """Whether to go on."""
        given: list[list[Command] | None] = []
        handled: list[Handled] = []
        for entry in record.entries:
            if entry is None:
                self._scheduler.next_wakeup()
                continue
            handled.append(entry)
            if isinstance(entry.event, contract.SwarmClosed) and self._about and self._about[0] == entry.event.swarm:
                self._tell()
            commands, error = self._handle(entry)
            given.append(commands)
            if commands is None:
                self._broke(record, len(handled), entry, error)
                return False
            if not self._sound(f"record {record.number}, event {len(handled)} {entry.event}"):
                break
        self._digest.add(given)
        if self._found.broken:
            return False
        if self._digest.digest() != record.digest:
            self._found.difference = _first_difference(record.number, handled, given)
        return self._found.difference is None

    def _handle(self, entry: Handled) -> tuple[list[Command] | None, str]:
        found = self._found
        found.events += 1
        found.ended_s = entry.now
        if found.began_s is None:
            found.began_s = entry.now
        began = time.perf_counter_ns()
        try:
            commands = self._scheduler.handle(entry.event, entry.now)
        except Exception as error:
            # Whatever a broken machine raises is what the replay is there to find.
            return None, f"{type(error).__name__}: {error}"
        found.handles_ns.append(time.perf_counter_ns() - began)
        found.past.follow(entry.event, entry.now)
        return commands, ""

    def _broke(self, record: Record, number: int, entry: Handled, error: str) -> None:
        if entry.commands is None:
            self._found.broken = f"record {record.number}, event {number} {entry.event}: the machine broke: {error}"
        else:
            self._found.difference = Difference(record.number, number, entry, None, error)

    def _sound(self, where: str) -> bool:
        found = self._found
        if not self._check_every or found.events % self._check_every:
            return True
        found.checks += 1
        try:
            invariants.check(self._scheduler)
        except AssertionError as error:
            found.broken = f"{where}: {error}"
            return False
        return True

    def _tell(self) -> None:
        if self._about is not None:
            self._found.story = self._scheduler.story(*self._about) or self._found.story


def _first_difference(record: int, handled: list[Handled], given: list[list[Command] | None]) -> Difference:
    for number, (entry, commands) in enumerate(zip(handled, given, strict=True), start=1):
        if entry.commands != commands:
            return Difference(record, number, entry, commands)
    return Difference(record, 0, None, None)
