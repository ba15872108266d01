"""The timers, in a calendar.

A lease is due at one time at most, its `due_s`. An entry of an earlier one is stale; most leases end before their
deadline, so most entries of later slots are stale when their slot comes, and are dropped without ever being compared.
"""

from __future__ import annotations

from enum import IntEnum

from proto.calendar_queue import Calendar, Entry
from supernode.scheduler.records import Lease
from supernode.scheduler.settings import TIMER_SLOTS_PER_S


class TimerKind(IntEnum):
    """What to do when the time has come. The timer of a lease is the lease itself."""

    NODE = 1
    PAIR = 2
    SWARM = 3


class Timer:
    """The numbers of the peers or of the swarm it is about, by kind."""

    __slots__ = ("kind", "other", "subject")

    def __init__(self, kind: TimerKind, subject: int, other: int) -> None:
        self.kind = kind
        self.subject = subject
        self.other = other


class Timers(Calendar):
    """Timers of leases are swept once most of them are stale; the others are few."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(TIMER_SLOTS_PER_S)

    def __len__(self) -> int:
        return self._count

    def set(self, due_s: float, kind: TimerKind, subject: int, other: int = 0) -> None:
        """Have a timer of a node, a pair or a swarm surface at `due_s`."""
        self._set(due_s, Timer(kind, subject, other))

    def set_lease(self, due_s: float, lease: Lease) -> None:
        """Have the lease surface at `due_s`, and at no other time that was set before."""
        lease.due_s = due_s
        self._set(due_s, lease)

    def next_due(self) -> float | None:
        """Time of the earliest timer that still means something."""
        while True:
            entries = self._open
            while self._next < len(entries):
                entry = entries[self._next]
                if _means_something(entry):
                    due_s: float = entry[0]
                    return due_s
                self._next += 1
                self._count -= 1
            if not self._open_next():
                return None

    def pop_due(self, now: float) -> Lease | Timer | None:
        """The earliest timer at or before `now` that still means something, removed; None when there is none."""
        if self._next < len(self._open) and self._open[self._next][0] > now:
            return None
        due_s = self.next_due()
        if due_s is None or due_s > now:
            return None
        what: Lease | Timer = self._open[self._next][2]
        self._next += 1
        self._count -= 1
        return what

    def sweep(self, live_leases: int) -> None:
        """Drop stale entries when they are the most, which bounds all at a multiple of live leases."""
        if self._count > 4 * live_leases + 1024:
            self._sweep()

    def _kept(self, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if _means_something(entry)]


def _means_something(entry: Entry) -> bool:
    lease = entry[2]
    if not isinstance(lease, Lease):
        return True
    due_s: float = entry[0]
    return lease.due_s == due_s
