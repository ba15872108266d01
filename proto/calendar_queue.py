"""A calendar, in place of a heap: lists by slots of time, of which only the earliest is put in order.

For those who set far more than comes about: what means nothing any more when its slot comes is dropped there without
ever being compared. Knows no clock and runs nothing.
"""

from __future__ import annotations

from bisect import insort
from heapq import heapify, heappop, heappush
from typing import Any, Final, TypeAlias

_NONE: Final = -1

# When, order of setting (equal times keep it), what. Of no fixed length for the compiler, which would take it apart and
# make it anew wherever it is passed on.
Entry: TypeAlias = tuple[Any, ...]


class Calendar:
    """Subclasses say what still means something, and take entries from the open slot: nothing is done as often."""

    __slots__ = ("_count", "_later", "_next", "_open", "_order", "_slot", "_slots", "_slots_per_s")

    def __init__(self, slots_per_s: float) -> None:
        self._slots_per_s = slots_per_s
        self._order = 0
        # Entries to come, those that mean nothing and were not dropped yet too.
        self._count = 0
        # The open slot: its number, its entries in order of time, and which of them is next.
        self._slot = _NONE
        self._open: list[Entry] = []
        self._next = 0
        # All other slots, their entries in order of setting; and a heap of their numbers.
        self._later: dict[int, list[Entry]] = {}
        self._slots: list[int] = []

    def _kept(self, entries: list[Entry]) -> list[Entry]:
        """Those of a slot that still mean something, in their order; the others are dropped."""
        raise NotImplementedError

    def _set(self, due_s: float, what: object) -> None:
        self._count += 1
        self._order += 1
        entry = (due_s, self._order, what)
        slot = int(due_s * self._slots_per_s)
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

    def _open_next(self) -> bool:
        """The open slot is done with; the earliest of the others that keeps any entry is put in order. False: none."""
        while self._slots:
            self._slot = heappop(self._slots)
            found = self._later.pop(self._slot)
            self._open = self._kept(found)
            self._next = 0
            self._count -= len(found) - len(self._open)
            if self._open:
                self._open.sort()
                return True
        return False

    def _close(self) -> None:
        """Something comes before the open slot: that one waits again."""
        if self._next < len(self._open):
            self._later[self._slot] = self._open[self._next :]
            heappush(self._slots, self._slot)
        self._slot = _NONE
        self._open = []
        self._next = 0

    def _sweep(self) -> None:
        """Drop everything that means nothing any more."""
        self._close()
        self._later = {slot: kept for slot, entries in self._later.items() if (kept := self._kept(entries))}
        self._slots = list(self._later)
        heapify(self._slots)
        self._count = sum(len(entries) for entries in self._later.values())
