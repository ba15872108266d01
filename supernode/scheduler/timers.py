"""The lazy heap of deadlines. An entry whose subject has moved on stays until it surfaces or the heap is swept."""

from __future__ import annotations

import heapq
from enum import IntEnum
from typing import TypeAlias


class TimerKind(IntEnum):
    """What to do when the time has come."""

    LEASE = 0
    NODE_UP = 1
    NODE_DOWN = 2
    PAIR = 3
    SWARM = 4


# When, order of setting (equal times keep it), what, and the numbers of leases, peers or swarms it is about, by kind.
Timer: TypeAlias = tuple[float, int, TimerKind, int, int]


class Timers:
    """Timers of leases are swept once most of them are stale; the others are few."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due: float, kind: TimerKind, subject: int, other: int = 0) -> None:
        """Have the timer surface at `due`."""
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, kind, subject, other))

    def next_due(self, live_leases: dict[int, float]) -> float | None:
        """Time of the earliest timer that still means something. `live_leases`: lease id to its own due time."""
        heap = self._heap
        while heap:
            due, _, kind, subject, _ = heap[0]
            if kind is not TimerKind.LEASE or live_leases.get(subject) == due:
                return due
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float, live_leases: dict[int, float]) -> Timer | None:
        """The earliest timer at or before `now` that still means something, removed; None when there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)
            if timer[2] is not TimerKind.LEASE or live_leases.get(timer[3]) == timer[0]:
                return timer
        return None

    def sweep(self, live_leases: dict[int, float]) -> None:
        """Drop stale lease timers when they are the most of the heap, which bounds it at a multiple of live leases."""
        if len(self._heap) <= 4 * len(live_leases) + 1024:
            return
        self._heap = [
            timer for timer in self._heap if timer[2] is not TimerKind.LEASE or live_leases.get(timer[3]) == timer[0]
        ]
        heapq.heapify(self._heap)
