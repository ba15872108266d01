"""How much of the event loop one party's frames may take: who takes more waits for it, and the others are served. Pure.

All that is said to the supernode is read by one loop. A frame within every limit can cost it a twentieth of a second,
and one member that sends such frames without end held up the pulls of all others fortyfold. Times are seconds, of the
processor where they were spent and monotonic otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

# Of the loop's time, to each party: a 10 Gbit/s node that stores 256 KiB pieces needs a little more.
OWN_PART: Final = 0.05
# And so much at once: a node that comes back with ten thousand blobs.
OWN_BURST_S: Final = 0.25
# To all of those together that need more than their own.
COMMON_PART: Final = 0.25
COMMON_BURST_S: Final = 1.0
# Of who was heard last; a party that is forgotten begins anew.
PARTIES_MAX: Final = 20_000


@dataclass(slots=True)
class _Allowance:
    """Fills up with time; may be overdrawn."""

    part: float
    burst_s: float
    left_s: float
    as_of_s: float

    def left(self, now_s: float) -> float:
        self.left_s = min(self.burst_s, self.left_s + self.part * (now_s - self.as_of_s))
        self.as_of_s = now_s
        return self.left_s


class LoopShares:
    """One for all sessions."""

    def __init__(self, now_s: float) -> None:
        self._common = _Allowance(COMMON_PART, COMMON_BURST_S, COMMON_BURST_S, now_s)
        # The longest silent first.
        self._own: OrderedDict[object, _Allowance] = OrderedDict()

    def spend(self, party: object, spent_s: float, now_s: float) -> float:
        """A party's frame has taken so much. How long it is to wait before its next one is read."""
        own = self._own.get(party)
        if own is None:
            own = self._own[party] = _Allowance(OWN_PART, OWN_BURST_S, OWN_BURST_S, now_s)
            if len(self._own) > PARTIES_MAX:
                self._own.popitem(last=False)
        self._own.move_to_end(party)
        own.left_s = own.left(now_s) - spent_s
        if own.left_s >= 0.0:
            return 0.0
        lent_s = max(0.0, min(-own.left_s, self._common.left(now_s)))
        self._common.left_s -= lent_s
        own.left_s += lent_s
        return -own.left_s / OWN_PART
