"""Runs the scheduler on the event loop: events in, commands out, batched per turn of the loop. Its only writer.

It decides nothing and carries nothing out (command_handler does); everything in a turn happens without a wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from supernode.scheduler import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.machine import Machine

logger = logging.getLogger(__name__)

# Events per turn; more wait for the next one, so that sockets are served in between.
EVENTS_PER_TURN_MAX: Final = 512


class Driver:
    """See the module. `on_fatal` is called once when the scheduler breaks: that is our own bug."""

    def __init__(
        self,
        scheduler: Machine[contract.Event, contract.Command],
        on_fatal: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._on_fatal = on_fatal
        self._clock = clock
        self._carry_out: Callable[[contract.Command], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._inbox: list[contract.Event] = []
        self._armed = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, carry_out: Callable[[contract.Command], None]) -> None:
        """Give commands to this; before the first event is handled."""
        self._carry_out = carry_out

    def post(self, event: contract.Event) -> None:
        """Queue an event for this turn of the loop."""
        self._inbox.append(event)
        self._arm()

    def close(self) -> None:
        """No event is handled any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def fail(self, error: BaseException | None) -> None:
        """Something that cannot happen did: stop rather than go on with a broken picture."""
        logger.critical("supernode_failed: a bug of ours, the process ends", exc_info=error)
        self.close()
        self._on_fatal()

    def _arm(self) -> None:
        if not self._armed and not self._closed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._armed = False
        if self._closed:
            return
        assert self._carry_out is not None
        events = self._inbox[:EVENTS_PER_TURN_MAX]
        del self._inbox[:EVENTS_PER_TURN_MAX]
        try:
            now = self._clock()
            for event in events:
                for command in self._scheduler.handle(event, now):
                    self._carry_out(command)
            self._set_timer(now)
        except Exception as error:
            self.fail(error)
            return
        if self._inbox:
            self._arm()

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._scheduler.next_wakeup()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.post(contract.Wakeup())
