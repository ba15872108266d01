"""Virtual time: calls in order of their time, and of their making where times are equal. Nothing here waits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from proto.calendar_queue import Calendar, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

# Cancelled calls are swept out when they are at least this many, and more than the others.
_SWEEP_MIN: Final = 1024
# Of this length a slot has some ten calls at 200 nodes with 4 MiB pieces and 1 Gbit/s, and some fifty at 10,000 with a
# tenth of that.
_SLOTS_PER_S: Final = 8192.0
_NEVER: Final = float("inf")


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


class Clock(Calendar):
    """`now` is seconds since the start of the run and never decreases.

    What is due at this very instant waits in a queue beside the calendar: all that the calendar has for the instant was
    put there before, and comes first. Either holds a Call, or what is to be run and its arguments.
    """

    __slots__ = ("_cancelled", "_instant", "_stopped", "now")

    def __init__(self) -> None:
        super().__init__(_SLOTS_PER_S)
        self.now = 0.0
        self._cancelled = 0
        self._stopped = False
        self._instant: deque[Call | tuple[Callable[..., None], tuple[object, ...]]] = deque()

    def run_at(self, due_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it at that time, or now if that is over, after everything already due then."""
        if due_s <= self.now:
            self._instant.append((run, args))
        else:
            self._set(due_s, (run, args))

    def run_after(self, delay_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it so much later."""
        if delay_s <= 0.0:
            self._instant.append((run, args))
        else:
            self._set(self.now + delay_s, (run, args))

    def at(self, due_s: float, run: Callable[..., None], *args: object) -> Call:
        """As run_at, for what may have to be cancelled; that costs more."""
        now = self.now
        call = Call(self, due_s if due_s > now else now, run, args)
        if due_s <= now:
            self._instant.append(call)
        else:
            self._set(due_s, call)
        return call

    def after(self, delay_s: float, run: Callable[..., None], *args: object) -> Call:
        """As run_after, for what may have to be cancelled."""
        return self.at(self.now + delay_s, run, *args)

    def run(self, until_s: float) -> bool:
        """Run calls until stop() is called: True; or until none is left before `until_s`: False."""
        self._stopped = False
        instant = self._instant
        while not self._stopped:
            due_s: float = self._open[self._next][0] if self._next < len(self._open) else _NEVER
            if instant and due_s > self.now:
                due_s = self.now
                what = instant.popleft()
            elif due_s == _NEVER:
                if not self._open_next():
                    return False
                continue
            elif due_s > until_s:
                return False
            else:
                what = self._open[self._next][2]
                self._next += 1
                self._count -= 1
            if isinstance(what, Call):
                run, args = what.what, what.args
                if run is None:
                    # What was cancelled moves no time.
                    self._cancelled -= 1
                    continue
                what.what, what.args = None, ()
            else:
                run, args = what
            self.now = due_s
            run(*args)
        return True

    def stop(self) -> None:
        """Have run() return after the present call."""
        self._stopped = True

    @property
    def waiting(self) -> int:
        """Calls to come, cancelled ones that were not swept out too."""
        return self._count + len(self._instant)

    def count_cancelled(self) -> None:
        """A call more waits for nothing: time-outs that never come about would fill the calendar."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_MIN and self._cancelled > self._count // 2:
            self._sweep()

    def _kept(self, entries: list[Entry]) -> list[Entry]:
        """Without those that were cancelled."""
        kept = [entry for entry in entries if not isinstance(entry[2], Call) or entry[2].what is not None]
        self._cancelled -= len(entries) - len(kept)
        return kept
