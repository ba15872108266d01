"""When the supernode is told how full this node's store is: for who looks on; nothing is decided by it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proto.wire.messages import StoreReport

# While it changes all the time.
EVERY_MIN_S: Final = 10.0
# Whatever it says: a session may have been replaced unseen.
EVERY_MAX_S: Final = 60.0


class StoreReports:
    """What was told last, and when. One a node."""

    def __init__(self) -> None:
        self._sent: StoreReport | None = None
        self._sent_s = 0.0

    def forget(self) -> None:
        """There is no session: the next one is told anew."""
        self._sent = None

    def is_due(self, report: StoreReport, now_s: float) -> bool:
        """Whether this is to be told now; it counts as told then."""
        waited_s = now_s - self._sent_s
        if self._sent is not None and waited_s < (EVERY_MAX_S if report == self._sent else EVERY_MIN_S):
            return False
        self._sent, self._sent_s = report, now_s
        return True
