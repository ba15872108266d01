"""The timers: lists by slots of time, of which only the earliest is put in order. A calendar, in place of a heap.

A lease is due at one time at most, its `due_s`. An entry of an earlier one is stale; most leases end before their
deadline, so most entries of later slots are stale when their slot comes, and are dropped without ever being compared.
"""

from __future__ import annotations

from bisect import insort
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Any, Final, TypeAlias

from supernode.scheduler.lease import Lease

# Of this length a slot has some ten timers at 200 nodes with 4 MiB pieces and 1 Gbit/s, and some hundreds at 10,000.
_SLOTS_PER_S: Final = 1024.0
_NONE: Final = -1


class TimerKind(IntEnum):
    """What to do when the time has come. The timer of a lease is the lease itself."""

    NODE_UP = 1
    NODE_DOWN = 2
    PAIR = 3
    SWARM = 4


class Timer:
    """The numbers of the peers or of the swarm it is about, by kind."""

    __slots__ = ("kind", "other", "subject")

    def __init__(self, kind: TimerKind, subject: int, other: int) -> None:
        self.kind = kind
        self.subject = subject
        self.other = other


# When, order of setting (equal times keep it), what (a Lease or a Timer). Of no fixed length for the compiler, which
# would take it apart and make it anew wherever it is passed on.
_Entry: TypeAlias = tuple[Any, ...]


class Timers:
    """Timers of leases are swept once most of them are stale; the others are few."""

    __slots__ = ("_count", "_later", "_next", "_open", "_order", "_slot", "_slots")

    def __init__(self) -> None:
        self._order = 0
        self._count = 0
        # The open slot: its number, its entries in order of time, and which of them is next.
        self._slot = _NONE
        self._open: list[_Entry] = []
        self._next = 0
        # All other slots, their entries in order of setting; and a heap of their numbers.
        self._later: dict[int, list[_Entry]] = {}
        self._slots: list[int] = []

    def __len__(self) -> int:
        return self._count

    def set(self, due_s: float, kind: TimerKind, subject: int, other: int = 0) -> None:
        """Have a timer of a node, a pair or a swarm surface at `due_s`."""
        self._add(due_s, Timer(kind, subject, other))

    def set_lease(self, due_s: float, lease: Lease) -> None:
        """Have the lease surface at `due_s`, and at no other time that was set before."""
        lease.due_s = due_s
        self._add(due_s, lease)

    def _add(self, due_s: float, what: Lease | Timer) -> None:
        self._count += 1
        self._order += 1
        entry = (due_s, self._order, what)
        slot = int(due_s * _SLOTS_PER_S)
        if slot == self._slot:
            insort(self._open, entry, self._next)
            return
        if slot < self._slot:
            self._close()
        entries = self._later.get(slot)
        if entries is None:
            self._later[slot] = [entry]
            heappush(self._slots, slot)
        else:
            entries.append(entry)

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
            if not self._slots:
                return None
            self._open_next()

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

    def _open_next(self) -> None:
        """The open slot is done with; the earliest of the others is put in order."""
        self._slot = heappop(self._slots)
        found = self._later.pop(self._slot)
        self._open = _valid(found)
        self._open.sort()
        self._next = 0
        self._count -= len(found) - len(self._open)

    def _close(self) -> None:
        """Something comes before the open slot: that one waits again."""
        if self._next < len(self._open):
            self._later[self._slot] = self._open[self._next :]
            heappush(self._slots, self._slot)
        self._slot = _NONE
        self._open = []
        self._next = 0

    def sweep(self, live_leases: int) -> None:
        """Drop stale entries when they are the most, which bounds all at a multiple of live leases."""
        if self._count <= 4 * live_leases + 1024:
            return
        self._close()
        self._later = {slot: valid for slot, entries in self._later.items() if (valid := _valid(entries))}
        self._slots = list(self._later)
        heapify(self._slots)
        self._count = sum(len(entries) for entries in self._later.values())


def _valid(entries: list[_Entry]) -> list[_Entry]:
    return [entry for entry in entries if _means_something(entry)]


def _means_something(entry: _Entry) -> bool:
    lease = entry[2]
    if not isinstance(lease, Lease):
        return True
    due_s: float = entry[0]
    return lease.due_s == due_s
