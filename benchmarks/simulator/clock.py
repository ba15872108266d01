"""Virtual time: calls in order of their time, and of their making where times are equal. Nothing here waits."""

from __future__ import annotations

from bisect import insort
from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# Cancelled calls are swept out when they are at least this many, and more than the others.
_SWEEP_MIN: Final = 1024
# Of this length a slot has some ten calls at 200 nodes with 4 MiB pieces and 1 Gbit/s, and some fifty at 10,000 with a
# tenth of that.
_SLOTS_PER_S: Final = 8192.0
_NONE: Final = -1
_NEVER: Final = float("inf")

# When, order of making, what (a Call if it can be taken back, and then no arguments), its arguments. Of no fixed length
# for the compiler, which would take it apart and make it anew wherever it is passed on.
_Entry: TypeAlias = tuple[Any, ...]


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

    A calendar in place of a heap: lists by slots of time, of which only the earliest is put in order. What is cancelled
    before its slot comes is dropped there without ever being compared. What is due at this very instant waits in a
    queue beside them: all that the calendar has for the instant was put there before, and comes first.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._order = 0
        self._count = 0
        self._cancelled = 0
        self._stopped = False
        # The open slot: its number, its entries in order of time, and which of them is next.
        self._slot = _NONE
        self._open: list[_Entry] = []
        self._next = 0
        # All other slots, their entries in order of making; and a heap of their numbers.
        self._later: dict[int, list[_Entry]] = {}
        self._slots: list[int] = []
        self._instant: deque[tuple[Callable[..., None] | Call, tuple[object, ...]]] = deque()

    def run_at(self, due_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it at that time, or now if that is over, after everything already due then."""
        if due_s <= self.now:
            self._instant.append((run, args))
        else:
            self._add(due_s, run, args)

    def run_after(self, delay_s: float, run: Callable[..., None], *args: object) -> None:
        """Run it so much later."""
        if delay_s <= 0.0:
            self._instant.append((run, args))
        else:
            self._add(self.now + delay_s, run, args)

    def at(self, due_s: float, run: Callable[..., None], *args: object) -> Call:
        """As run_at, for what may have to be cancelled; that costs more."""
        now = self.now
        call = Call(self, due_s if due_s > now else now, run, args)
        if due_s <= now:
            self._instant.append((call, ()))
        else:
            self._add(due_s, call, ())
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
                run, args = instant.popleft()
            elif due_s == _NEVER:
                if not self._open_next():
                    return False
                continue
            elif due_s > until_s:
                return False
            else:
                entry = self._open[self._next]
                run, args = entry[2], entry[3]
                self._next += 1
                self._count -= 1
            if isinstance(run, Call):
                call, what = run, run.what
                if what is None:
                    # What was cancelled moves no time.
                    self._cancelled -= 1
                    continue
                run, args = what, call.args
                call.what, call.args = None, ()
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

    def _add(self, due_s: float, what: Callable[..., None] | Call, args: tuple[object, ...]) -> None:
        self._order += 1
        self._count += 1
        entry = (due_s, self._order, what, args)
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

    def _open_next(self) -> bool:
        """The open slot is done with; the earliest of the others that has any call is put in order. False: none has."""
        while self._slots:
            self._slot = heappop(self._slots)
            self._open = self._kept(self._later.pop(self._slot))
            self._next = 0
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

    def _kept(self, entries: list[_Entry]) -> list[_Entry]:
        """Without those that were cancelled."""
        kept = [entry for entry in entries if not isinstance(entry[2], Call) or entry[2].what is not None]
        dropped = len(entries) - len(kept)
        self._count -= dropped
        self._cancelled -= dropped
        return kept

    def count_cancelled(self) -> None:
        """A call more waits for nothing: time-outs that never come about would fill the calendar."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_MIN and self._cancelled > self._count // 2:
            self._later = {slot: kept for slot, entries in self._later.items() if (kept := self._kept(entries))}
            self._slots = list(self._later)
            heapify(self._slots)
