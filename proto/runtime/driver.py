"""Runs a state machine on the event loop: events in, commands out, batched per turn of the loop. Its only writer.

It decides nothing and carries nothing out; everything in a turn happens without a wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.machine import Machine

logger = logging.getLogger(__name__)

E = TypeVar("E")
C = TypeVar("C")

# Events per turn; more wait for the next one, so that sockets are served in between.
EVENTS_PER_TURN_MAX: Final = 512
# An event loop's timers may fire a little early.
_TIMER_MIN_S: Final = 0.001
# A turn that comes so much later than it was due: this process stood still, or the machine did.
STALL_S: Final = 1.0


class Driver(Generic[E, C]):
    """Made on a running loop. `wakeup` is the event that the machine asks for by next_wakeup().

    The machine's time leaves out those for which the process stood still: what others said meanwhile is still to be
    read, and comes late for that reason alone.

    `on_fatal` is called once when the machine, or what carries out its commands, breaks: that is our own bug.

    `look_s`: the machine is asked when it wants to be woken so long after an event, once for all that came by then. A
    machine to which a moment more means nothing has the question for many turns at the price of one.
    """

    def __init__(
        self,
        machine: Machine[E, C],
        wakeup: E,
        on_fatal: Callable[[BaseException | None], None],
        *,
        look_s: float = 0.0,
    ) -> None:
        self._machine = machine
        self._wakeup = wakeup
        self._on_fatal = on_fatal
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[E] = deque()
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        # When the machine wants to be woken, in its time, and for how long that has stood still.
        self._due_s: float | None = None
        self._stood_s = 0.0
        self.closed = False

    def begin(self, carry_out: Callable[[C], None], stale: Callable[[E], bool] = lambda _: False) -> None:
        """Commands go there, from before the first event on. An event that is `stale` at its turn is dropped."""
        self._carry_out, self._stale = carry_out, stale

    def now(self) -> float:
        """The machine's time."""
        now_s = time.monotonic() - self._stood_s
        late_s = 0.0 if self._due_s is None else now_s - self._due_s
        if late_s <= STALL_S:
            return now_s
        logger.warning("stood_still seconds=%.1f", late_s)
        self._stood_s += late_s
        return now_s - late_s

    def post(self, event: E) -> None:
        """Queue an event for this turn of the loop."""
        if self.closed:
            return
        self._inbox.append(event)
        self._arm()

    def post_threadsafe(self, event: E) -> None:
        """The same from any thread; handled as soon as the loop wakes."""
        if not self.call_threadsafe(self._take, event):
            logger.debug("event_dropped %s", type(event).__name__)

    def call_threadsafe(self, call: Callable[..., object], *arguments: object) -> bool:
        """Have the loop call this. False where it is closed: the process ends, and nobody waits for it."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return False
        return True

    def close(self) -> None:
        """Nothing is handled any more."""
        self.closed = True
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    def fail(self, error: BaseException | None) -> None:
        """Something that cannot happen did: stop rather than go on with a broken picture."""
        self.close()
        self._on_fatal(error)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _take(self, event: E) -> None:
        if self.closed:
            return
        self._inbox.append(event)
        if not self._armed:
            self._turn()

    def _turn(self) -> None:
        self._armed = False
        if self.closed:
            return
        try:
            now = self.now()
            for _ in range(min(len(self._inbox), EVENTS_PER_TURN_MAX)):
                event = self._inbox.popleft()
                if self._stale(event):
                    continue
                for command in self._machine.handle(event, now):
                    self._carry_out(command)
            if self._look_s:
                self._look_later(now)
            else:
                self._set_timer(now)
        except Exception as error:
            self.fail(error)
            return
        if self._inbox:
            self._arm()

    def _look_later(self, now: float) -> None:
        """The timer that is set stays meanwhile: one that is due too early does no harm."""
        if self._look is None:
            self._look = self._loop.call_later(self._look_s, self._look_now)
            if self._due_s is None:
                self._due_s = now + self._look_s

    def _look_now(self) -> None:
        self._look = None
        try:
            self._set_timer(self.now())
        except Exception as error:
            self.fail(error)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._due_s = self._machine.next_wakeup()
        if due is not None:
            self._timer = self._loop.call_later(max(_TIMER_MIN_S, due - now), self.post, self._wakeup)
