"""Runs the downloader: events into one inbox, handled once a turn of the loop; its commands are given to their handler.

The one owner of the machine, whose decisions are never second-guessed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import Wakeup
from peer.node.command_handler import methods_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event
    from peer.downloader.machine import Downloader
    from peer.node.command_handler import CommandHandler
    from proto.ids import Digest
    from proto.wire.messages import Source

logger = logging.getLogger(__name__)

EVENTS_PER_TURN_MAX: Final = 512


class Driver:
    """Made on a running loop. begin() comes before the first event; `on_fatal` is called once if the machine breaks."""

    def __init__(self, machine: Downloader, on_fatal: Callable[[], None]) -> None:
        self._machine = machine
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False

    def begin(self, handler: CommandHandler, stale: Callable[[Event], bool]) -> None:
        """From now on it carries out the commands. An event that is `stale` when its turn comes is dropped."""
        self._methods, self._stale = methods_of(handler), stale

    def post(self, event: Event) -> None:
        """Queue an event for this turn of the loop."""
        if self.closed:
            return
        self._inbox.append(event)
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def post_threadsafe(self, event: Event) -> None:
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
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, event: Event) -> None:
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
            now = time.monotonic()
            for _ in range(min(len(self._inbox), EVENTS_PER_TURN_MAX)):
                event = self._inbox.popleft()
                if self._stale(event):
                    continue
                for command in self._machine.handle(event, now):
                    self._methods[type(command)](command)
            self._set_timer(now)
        except Exception:
            logger.critical("downloader_failed: a bug of ours, the process ends", exc_info=True)
            self.close()
            self._on_fatal()
            return
        if self._inbox and not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.next_wakeup()
        if due is not None:
            self._timer = self._loop.call_later(max(0.001, due - now), self.post, Wakeup())

    # --- questions ----------------------------------------------------------------------------------------------

    def known_size(self, digest: Digest, source: Source) -> int | None:
        return self._machine.known_size(digest, source, time.monotonic())

    def story(self, digest: Digest, piece: int | None = None) -> list[str]:
        """Why a blob, or one piece of it, stands as it does."""
        return self._machine.story(digest, piece)

    @property
    def downloads(self) -> int:
        """Blobs that are wanted and not complete."""
        return len(self._machine.state.busy)
