"""Virtual time: calls in order of their time, and of their making where times are equal. Nothing here waits."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """A call to come. `cancel` makes it nothing."""

    __slots__ = ("_run", "due_s")

    def __init__(self, due_s: float, run: Callable[[], None]) -> None:
        self.due_s = due_s
        self._run: Callable[[], None] | None = run

    def cancel(self) -> None:
        """It will not run; harmless when it has."""
        self._run = None

    def take(self) -> Callable[[], None] | None:
        """What is to be run, once; None when it was cancelled."""
        run, self._run = self._run, None
        return run


class Clock:
    """`now` is seconds since the start of the run and never decreases."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = 0
        self._heap: list[tuple[float, int, Call]] = []

    def at(self, due_s: float, run: Callable[[], None]) -> Call:
        """Run it at that time, or now if that is over, after everything already due then."""
        call = Call(max(self.now, due_s), run)
        self._order += 1
        heapq.heappush(self._heap, (call.due_s, self._order, call))
        return call

    def after(self, delay_s: float, run: Callable[[], None]) -> Call:
        """Run it so much later."""
        return self.at(self.now + delay_s, run)

    def step(self, until_s: float) -> bool:
        """Run the next call; False when none is left before `until_s`."""
        while self._heap:
            if self._heap[0][0] > until_s:
                return False
            due_s, _, call = heapq.heappop(self._heap)
            run = call.take()
            if run is not None:
                self.now = due_s
                run()
                return True
        return False
