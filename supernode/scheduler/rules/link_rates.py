"""Rule 5, rates: what a link is believed to carry, learned from each transfer.

A link's rate is declared, or learned: a transfer's rate times the mean number that ran beside it (itself included) is
what the link carried at least. It is not probed with more than that: shared links make every hop of a rare piece
longer, and a seed that sends at the rate of one peer's link already keeps a swarm of equal links at its bound.
Rates are bytes/s, 0.0 where they are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.settings import (
    ASSUMED_LEFT,
    BRIEFEST_S,
    FAR_MORE,
    IDLE_PART_FALL,
    IDLE_PART_RISE,
    MORE,
    RATE_FALL,
    RATE_RISE,
    RATED_BYTES_MIN,
    REACTION_FACTOR,
    RISE_MAX,
    SHARED_PART,
    SURE_SAMPLES,
    TYPICAL_PART,
)

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Link
    from supernode.scheduler.state import State

# --- what is known of a link ---------------------------------------------------------------------------------------


def slow_rate(state: State) -> float:
    """From which rate on downwards a link is slow."""
    return state.settings.slow_part * (state.typical_rate or 0.0)


def assume_rate(link: Link, rate: float) -> None:
    """It may well carry `rate`, nothing having gone over it yet: so fast comes what it is to send on."""
    if link.carries is None and link.declared is None:
        link.assumed = rate


# --- transfers over a link -----------------------------------------------------------------------------------------


def transfer_seconds(link: Link, now: float) -> float:
    """The integral of the number of running transfers, so far."""
    return link.area + link.running * (now - link.area_at)


def begin(link: Link, now: float) -> float:
    """A transfer began; returns transfer_seconds."""
    link.area = transfer_seconds(link, now)
    link.area_at = now
    link.running += 1
    return link.area


def end(link: Link, now: float) -> None:
    """A transfer ended."""
    link.area = transfer_seconds(link, now)
    link.area_at = now
    link.running -= 1


def note_idle_time(link: Link, granted_at: float, ready_at: float | None, elapsed_s: float, now: float) -> None:
    """A transfer ended that was granted at `granted_at` and took `elapsed_s`: did it leave the link idle before?

    `ready_at` is when both its ends were free: while the other end was busy, this one was idle for no fault of
    the grant's.
    """
    if granted_at < link.ended_at and ready_at is not None:
        idle_part = max(0.0, now - elapsed_s - max(link.ended_at, ready_at)) / elapsed_s
        link.idle_part += (IDLE_PART_RISE if idle_part > link.idle_part else IDLE_PART_FALL) * (
            idle_part - link.idle_part
        )
    link.ended_at = now


def learn(link: Link, rate: float, beside: float, beside_there: float, there: float, *, long: bool = True) -> None:
    """Take in a transfer that ended well: its rate, the mean numbers running here and at its other end, and that
    link's rate as known before.

    A short one may have come from buffers on the way: it never raises what a long one told. Where the other end was
    shared or is slower, that may be what limited the transfer: no reason to think less of this link.
    """
    carried = rate * beside
    if link.rated and not long and carried > link.speed():
        return
    link.measured += 1
    if link.assumed:
        link.assumed = link.assumed * ASSUMED_LEFT if carried < link.assumed else 0.0
    if link.carries is None or (long and not link.rated):
        link.carries = carried
        link.bottleneck_samples = 0
    elif carried > link.carries:
        if carried > MORE * link.carries:
            link.bottleneck_samples = 0
        link.carries += RATE_RISE * (min(carried, RISE_MAX * link.carries) - link.carries)
    elif beside_there <= 1.0 + SHARED_PART and not 0.0 < MORE * there < link.carries:
        link.carries += RATE_FALL * (carried - link.carries)
    link.rated |= long
    if there > MORE * rate * beside_there and MORE * carried > link.carries:
        link.bottleneck_samples += SURE_SAMPLES if there > FAR_MORE * rate * beside_there else 1


def learn_from(state: State, lease: Lease, elapsed_s: float) -> None:
    """A transfer ended well after `elapsed_s`: what it teaches of both its links, and of transfers at large."""
    if elapsed_s <= 0.0 and lease.started_at is not None:
        elapsed_s = state.now - lease.started_at
    if elapsed_s < BRIEFEST_S:
        return
    rate = lease.size_bytes / elapsed_s
    if lease.started_at == lease.granted_at:
        took_s = max(0.0, state.now - elapsed_s - lease.granted_at)
        # A stall of a machine tells little of what others will take.
        state.reaction_s += TYPICAL_PART * (min(took_s, REACTION_FACTOR * state.reaction_s) - state.reaction_s)
    up, down = lease.links
    beside_up, beside_down = _beside(up, lease, rate, state.now), _beside(down, lease, rate, state.now)
    up_speed, down_speed = up.speed(), down.speed()
    long = lease.size_bytes >= RATED_BYTES_MIN
    learn(up, rate, beside_up, beside_down, down_speed, long=long)
    learn(down, rate, beside_down, beside_up, up_speed, long=long)
    competed = lease.member.swarm.wanting not in (0, lease.receiver.bit)
    for link in lease.links:
        if competed:
            # With others to serve, a second transfer on a link delays every hop by more than its idle time costs.
            link.idle_part = 0.0
        else:
            note_idle_time(link, lease.granted_at, lease.started_at, elapsed_s, state.now)
        link.direction.list_by_rate(link)
    typical = state.typical_rate
    if typical is None:
        state.typical_rate = rate
    elif long or rate < typical:
        state.typical_rate = typical + TYPICAL_PART * (min(rate, RISE_MAX * typical) - typical)
    if long:
        state.paced += 1
        if state.paced > 1:
            rate = min(rate, RISE_MAX * state.pace_rate)
        state.pace_rate += max(TYPICAL_PART, 1.0 / state.paced) * (rate - state.pace_rate)


def _beside(link: Link, lease: Lease, rate: float, now: float) -> float:
    """Mean number of transfers like it (of `rate`) over the link since it started, itself included: one whose other
    end is known to be slower counts for as much less as it is slower.
    """
    if lease.started_at is None:
        return 1.0
    elapsed_s = now - lease.started_at
    if elapsed_s <= 0.0:
        return float(link.running)
    beside = (transfer_seconds(link, now) - lease.area[link.way]) / elapsed_s
    if link.running > 1:
        less = 0.0
        for other in link.leases.values():
            if other is not lease and other.started_at is not None and other.share < rate:
                overlap_s = now - max(other.started_at, lease.started_at)
                less += overlap_s / elapsed_s * (1.0 - other.share / rate)
        beside -= less
    return max(1.0, beside)
