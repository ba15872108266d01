"""The supernode's clock, as this node knows it: by it tickets end, whatever this machine's own clock says.

While the supernode is away nobody can have a ticket renewed: for AWAY_S its clock stands still here, so that nodes go
on sharing. Safe to read from any thread.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from peer.membership.refusals import CLOCK_DIFFERENCE_S, clock_text

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

AWAY_S: Final = 2 * 3600.0


class SupernodeClock:
    """`clock` is this machine's, Unix seconds. Until the supernode has told its time, both are taken to be the same."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead_s = 0.0
        self._lost_unix_s: float | None = None

    def set(self, unix_s: float) -> None:
        """The supernode says that it is this late."""
        self._ahead_s = unix_s - self._clock()
        if abs(self._ahead_s) > CLOCK_DIFFERENCE_S:
            logger.warning("clock_differs %s; tickets are judged by the supernode's", clock_text(self._ahead_s))

    @property
    def ahead_s(self) -> float:
        """How much the supernode's clock is ahead of this machine's, as it said last."""
        return self._ahead_s

    def resume(self) -> None:
        """There is a session."""
        self._lost_unix_s = None

    def lost(self) -> None:
        """The session is over."""
        self._lost_unix_s = self._clock() + self._ahead_s

    def now(self) -> float:
        """Unix seconds by which tickets are judged."""
        now_s = self._clock() + self._ahead_s
        lost_s = self._lost_unix_s
        return now_s if lost_s is None else min(now_s, max(lost_s, now_s - AWAY_S))
