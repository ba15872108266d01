"""The lazy heap of deadlines. An entry whose subject has moved on stays until it surfaces or the heap is swept."""

from __future__ import annotations

import heapq
from enum import IntEnum
from typing import NamedTuple


class TimerKind(IntEnum):
    """What to do when the time has come."""

    LEASE = 0
    NODE_UP = 1
    NODE_DOWN = 2
    PAIR = 3
    SWARM = 4


class Timer(NamedTuple):
    """`subject` and `other` are numbers of leases, peers or swarms, by kind. Equal times keep `order` of setting."""

    due: float
    order: int
    kind: TimerKind
    subject: int
    other: int


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
        heapq.heappush(self._heap, Timer(due, self._order, kind, subject, other))

    def next_due(self, live_leases: dict[int, float]) -> float | None:
        """Time of the earliest timer that still means something. `live_leases`: lease id to its own due time."""
        heap = self._heap
        while heap:
            first = heap[0]
            if first.kind is TimerKind.LEASE and live_leases.get(first.subject) != first.due:
                heapq.heappop(heap)
                continue
            return first.due
        return None

    def pop_due(self, now: float) -> Timer | None:
        """The earliest timer at or before `now`, removed; None when there is none."""
        if self._heap and self._heap[0].due <= now:
            return heapq.heappop(self._heap)
        return None

    def sweep(self, live_leases: dict[int, float]) -> None:
        """Drop stale lease timers when they are the most of the heap, which bounds it at a multiple of live leases."""
        if len(self._heap) <= 4 * len(live_leases) + 1024:
            return
        self._heap = [
            timer
            for timer in self._heap
            if timer.kind is not TimerKind.LEASE or live_leases.get(timer.subject) == timer.due
        ]
        heapq.heapify(self._heap)
