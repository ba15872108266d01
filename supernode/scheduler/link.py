"""A link: one direction of a node's network connection, what runs over it, and what it is believed to carry.

It only keeps count and learns; who gets a lease is policy's. Rates are bytes/s.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease

# How fast the estimate of what a link carries follows a faster and a slower transfer. Slow downwards: a slow
# transfer may be the other end's doing.
_RISE: Final = 0.5
_FALL: Final = 1 / 16
# A declared rate counts as filled at this part of it (the rest carries headers and control), a learned one, which
# rises with every quick transfer, sooner.
_FILLED: Final = 0.9
_UNFILLED: Final = 0.6
# What a transfer takes of a link while the other end is unknown, bytes/s: more than any link has.
FILLS: Final = 1e15
# A transfer tells how much this link carries, not only how little it may be, if the other end could have done so many
# times as much; and so many such transfers tell what may run beside one. One is enough where the other end could have
# done far more.
_MORE: Final = 1.5
_FAR_MORE: Final = 3.0
_SURE: Final = 2
# What is left of a hoped for rate with each transfer that was slower.
_DOUBT: Final = 0.7
# How fast the estimate of a link's idle part follows upwards and downwards, and from where on it counts: then a grant
# takes longer to become a transfer than one transfer lasts, and one more must be on its way.
_GAP_RISE: Final = 0.5
_GAP_FALL: Final = 1 / 256
_GAPPY: Final = 0.03
# A link counts as shared if more than this part of a second transfer ran on average.
_PARTLY: Final = 0.35


def band_of(rate: float) -> int:
    """Rates in bands of half an octave, so that nodes with links about as fast can be found by masks."""
    return round(2.0 * log2(rate))


class Link:
    """One direction of a node's link: chains of transfers (a running one, at most one behind it) and what it carries.

    Admission: one transfer, and one more while the links at the other ends together cannot fill this one. Its own
    rate is declared, or learned: a transfer's rate times the mean number that ran beside it (itself included) is
    what the link carried at least. It is not probed with more than that: shared links make every hop of a rare piece
    longer, and a seed that sends at the rate of one peer's link already keeps a swarm of equal links at its bound.
    """

    __slots__ = (
        "_area",
        "_area_at",
        "_ended_at",
        "_gap_part",
        "carries",
        "chains",
        "declared",
        "held_up",
        "hoped",
        "measured",
        "open_ends",
        "running",
        "slots",
        "used",
    )

    def __init__(self, slots: int, declared: float | None) -> None:
        self.slots = slots
        self.declared = declared
        # Bytes/s that it was lately seen to carry; None until a transfer ended.
        self.carries: float | None = None
        # Transfers that it was learned from.
        self.measured = 0
        # Transfers at about that rate that this link held up, as the other end could have done more; those whose other
        # end could have done far more count as many as it takes.
        self.held_up = 0
        # Bytes/s that it may well carry, until transfers tell; 0.0: nothing is known.
        self.hoped = 0.0
        self.chains = 0
        # What the other ends of its transfers could take or give together, at most its own rate each.
        self.used = 0.0
        # Transfers about to end with none behind them yet.
        self.open_ends: list[Lease] = []
        # Transfers started and not ended, and the integral of their number over time.
        self.running = 0
        self._area = 0.0
        self._area_at = 0.0
        # When its last transfer ended, and for what part of a transfer's time it lately stood idle although the
        # next one had been granted by then.
        self._ended_at = 0.0
        self._gap_part = 0.0

    def room_now(self) -> bool:
        """Whether one more transfer could start at once."""
        if self.chains == 0:
            return self.slots > 0
        if self.chains >= self.slots:
            return False
        if self.chains == 1 and self._gap_part > _GAPPY:
            return True
        return self.used < self._filled()

    def room(self) -> bool:
        """Whether one more transfer could start at once or right after one that is about to end."""
        return self.open_end() is not None or self.room_now()

    def open_end(self) -> Lease | None:
        """The transfer that another may follow: about to end, and what else runs then does not fill the link."""
        if self.chains <= 1:
            return self.open_ends[0] if self.open_ends else None
        for lease in self.open_ends:
            if self.used - self.share(lease) < self._filled():
                return lease
        return None

    def room_for_two(self) -> bool:
        """Whether a transfer started now would leave room for another."""
        flow = self.used / self.chains if self.chains else self.speed()
        return self.chains + 2 <= self.slots and self.used + flow < self._filled()

    def _filled(self) -> float:
        """From which use on it takes no more transfers, bytes/s."""
        return (
            _FILLED * self.declared if self.declared is not None else _UNFILLED * max(self.carries or 0.0, self.hoped)
        )

    def expected_flow(self, behind: Lease | None) -> float | None:
        """Rate of one more transfer as far as this end knows; `behind` is the one it follows."""
        speed = self.declared or max(self.carries or 0.0, self.hoped)
        if not speed:
            return None
        if behind is None:
            return max(speed - self.used, speed / (self.chains + 1))
        return max(speed - (self.used - self.share(behind)), speed / self.chains)

    def share(self, lease: Lease) -> float:
        """What the transfer's other end could take or give of this link's rate; all of it while unknown."""
        return min(lease.share, self.declared) if self.declared is not None else lease.share

    def speed(self) -> float:
        """Rate of the whole link as far as known, bytes/s; 0.0 when not at all."""
        return self.declared or self.carries or 0.0

    def known(self, slow: float) -> float:
        """The same, but 0.0 while its transfers may all have been held up elsewhere and were not slower than `slow`.

        Taken for slower than it is, a node is served beside others, and so it is.
        """
        return self.own() or (self.carries if self.carries is not None and self.carries < slow else 0.0)

    def own(self) -> float:
        """The same, but 0.0 while its transfers may all have been held up elsewhere."""
        if self.declared is not None:
            return self.declared
        return self.carries if self.carries is not None and self.held_up >= _SURE else 0.0

    def band(self) -> int | None:
        """The band that its own rate is in; see band_of. None while that is not known."""
        rate = self.own()
        return band_of(rate) if rate else None

    def area(self, now: float) -> float:
        """Transfer-seconds so far."""
        return self._area + self.running * (now - self._area_at)

    def begin(self, now: float) -> float:
        """A transfer began; returns `area`."""
        self._area += self.running * (now - self._area_at)
        self._area_at = now
        self.running += 1
        return self._area

    def end(self, now: float) -> None:
        """A transfer ended."""
        self._area += self.running * (now - self._area_at)
        self._area_at = now
        self.running -= 1

    def saw_gap(self, granted_at: float, ready_at: float | None, elapsed_s: float, now: float) -> None:
        """A transfer ended that was granted at `granted_at` and took `elapsed_s`: did it leave the link idle before?

        `ready_at` is when both its ends were free: while the other end was busy, this one was idle for no fault of
        the grant's.
        """
        if granted_at < self._ended_at and ready_at is not None:
            gap_part = max(0.0, now - elapsed_s - max(self._ended_at, ready_at)) / elapsed_s
            self._gap_part += (_GAP_RISE if gap_part > self._gap_part else _GAP_FALL) * (gap_part - self._gap_part)
        self._ended_at = now

    def hope(self, rate: float) -> None:
        """It may well carry `rate` bytes/s, nothing having gone over it yet: so fast comes what it is to send on."""
        if self.carries is None and self.declared is None:
            self.hoped = rate

    def see_idle(self) -> None:
        """What runs over it is far slower than foreseen: one more transfer beside it."""
        self._gap_part = 1.0

    def forget_gap(self) -> None:
        """Several nodes want what goes over this link: it takes no further transfer on account of gaps."""
        self._gap_part = 0.0

    def learn(self, rate: float, beside: float, beside_there: float, there: float) -> None:
        """Take in a transfer that ended well: its rate in bytes/s, the mean numbers running here and at its other end,
        and that link's rate as known before (0.0: not at all).

        Where the other end was shared or is slower, it may be what limited the transfer: no reason to think less of
        this one.
        """
        carried = rate * beside
        self.measured += 1
        if self.hoped:
            self.hoped = self.hoped * _DOUBT if carried < self.hoped else 0.0
        if self.carries is None:
            self.carries = carried
        elif carried > self.carries:
            if carried > _MORE * self.carries:
                self.held_up = 0
            self.carries += _RISE * (carried - self.carries)
        elif beside_there <= 1.0 + _PARTLY and not 0.0 < _MORE * there < self.carries:
            self.carries += _FALL * (carried - self.carries)
        if there > _MORE * rate * beside_there and _MORE * carried > self.carries:
            self.held_up += _SURE if there > _FAR_MORE * rate * beside_there else 1
