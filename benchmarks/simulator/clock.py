"""Virtual time: calls in order of their time, and of their making where times are equal. Nothing here waits."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Cancelled calls are swept out of the heap when they are at least this many, and more than the others.
_SWEEP_MIN: Final = 1024


class Call:
    """A call to come that can be taken back. `due_s` is its time."""

    __slots__ = ("_clock", "args", "due_s", "what")

    def __init__(self, clock: Clock, due_s: float, run: Callable[..., None], args: tuple[object, ...]) -> None:
        self.due_s = due_s
        self._clock = clock
        # What is to be run with these; None when it has been, or is not to be.
        self.what: Callable[..., None] | None = run
        self.args = args

    def cancel(self) -> None:
        """It will not run; harmless when it has."""
        if self.what is not None:
            self.what, self.args = None, ()
            self._clock.count_cancelled()


class Clock:
    """`now` is seconds since the start of the run and never decreases.

    What is due at this very instant waits in a queue beside the heap: all that the heap has for the instant was put
    there before, and comes first.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._order = 0
        self._cancelled = 0
        self._stopped = False
        # (when, order, what, its arguments); what can be taken back is a Call, and has no arguments here.
        self._heap: list[tuple[float, int, Callable[..., None] | Call, tuple[object, ...]]] = []
        self._instant: deque[tuple[Callable[..., None] | Call, tuple[object, ...]]] = deque()

    def run_at(self, due_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it at that time, or now if that is over, after everything already due then."""
        if due_s <= self.now:
            self._instant.append((run, args))
        else:
            self._order += 1
            heapq.heappush(self._heap, (due_s, self._order, run, args))

    def run_after(self, delay_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it so much later."""
        if delay_s <= 0.0:
            self._instant.append((run, args))
        else:
            self._order += 1
            heapq.heappush(self._heap, (self.now + delay_s, self._order, run, args))

    def at(self, due_s: float, run: Callable[..., None], *args: object) -> Call:
        """As run_at, for what may have to be cancelled; that costs more."""
        now = self.now
        call = Call(self, due_s if due_s > now else now, run, args)
        if due_s <= now:
            self._instant.append((call, ()))
        else:
            self._order += 1
            heapq.heappush(self._heap, (due_s, self._order, call, ()))
        return call

    def after(self, delay_s: float, run: Callable[..., None], *args: object) -> Call:
        """As run_after, for what may have to be cancelled."""
        return self.at(self.now + delay_s, run, *args)

    def run(self, until_s: float) -> bool:
        """Run calls until stop() is called: True; or until none is left before `until_s`: False."""
        self._stopped = False
        instant, pop, now = self._instant, heapq.heappop, self.now
        while not self._stopped:
            # A sweep makes another heap.
            heap = self._heap
            if instant and not (heap and heap[0][0] <= now):
                run, args = instant.popleft()
            elif heap and heap[0][0] <= until_s:
                now, _, run, args = pop(heap)
            else:
                return False
            if isinstance(run, Call):
                call, what = run, run.what
                if what is None:
                    # What was cancelled moves no time.
                    self._cancelled -= 1
                    now = self.now
                    continue
                run, args = what, call.args
                call.what, call.args = None, ()
            self.now = now
            run(*args)
        return True

    def stop(self) -> None:
        """Have run() return after the present call."""
        self._stopped = True

    @property
    def waiting(self) -> int:
        """Entries of the heap and of the queue, cancelled ones too."""
        return len(self._heap) + len(self._instant)

    def count_cancelled(self) -> None:
        """A call more waits for nothing: time-outs that never come about would fill the heap."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_MIN and self._cancelled > len(self._heap) // 2:
            before = len(self._heap)
            self._heap = [entry for entry in self._heap if not isinstance(entry[2], Call) or entry[2].what is not None]
            heapq.heapify(self._heap)
            self._cancelled -= before - len(self._heap)
