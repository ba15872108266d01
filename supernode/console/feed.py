"""One snapshot an interval for all who look, and a limit on them. What is in it is not known here.

Nothing is computed while nobody looks. The interval grows with what a snapshot costs, so that it never takes more of
the event loop than its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

INTERVAL_S: Final = 2.0
# Of the loop's time, at most.
SHARE: Final = 0.02
VIEWERS_MAX: Final = 32
# Then a viewer comes again, and shows again who it is.
LOOK_MAX_S: Final = 3600.0


class TooManyViewers(Exception):
    """VIEWERS_MAX look already."""


class Feed:
    """On the event loop. `make` gives a snapshot; end() it in the end."""

    def __init__(self, make: Callable[[], bytes], *, interval_s: float = INTERVAL_S) -> None:
        self._make = make
        self._interval_s = interval_s
        self._latest = b""
        self._due_s = float("-inf")
        self._ending = asyncio.Event()
        self.viewers = 0

    def latest(self) -> bytes:
        """The snapshot of this interval."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            began_s = time.thread_time()
            self._latest = self._make()
            cost_s = time.thread_time() - began_s
            self._due_s = now_s + max(self._interval_s, cost_s / SHARE)
        return self._latest

    async def follow(self) -> AsyncGenerator[bytes]:
        """Each interval's snapshot, the first at once, until end() or LOOK_MAX_S. Raises TooManyViewers."""
        if self.viewers >= VIEWERS_MAX:
            raise TooManyViewers
        self.viewers += 1
        until_s = time.monotonic() + LOOK_MAX_S
        try:
            while not self._ending.is_set() and time.monotonic() < until_s:
                yield self.latest()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._due_s - time.monotonic())):
                        await self._ending.wait()
        finally:
            self.viewers -= 1

    def end(self) -> None:
        """Nobody is sent anything any more."""
        self._ending.set()
