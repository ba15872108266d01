"""Rule 2, level by level: which transfer takes a slot, or waits behind which, and who has room for one more.

One transfer a link, and one more while the links at the other ends together cannot fill this one. A link that stands
idle between transfers granted in time takes one more, while nobody else is served over it. See records.Link.room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.rules import link_rates
from supernode.scheduler.settings import UNLIMITED_BYTES_S

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Link
    from supernode.scheduler.state import State


# --- masks of nodes with room --------------------------------------------------------------------------------------


def refresh(link: Link) -> None:
    """Bring the masks of nodes with room up to date after anything about the link changed."""
    has_room = not link.blocked_until and link.room()
    # Masks of many nodes are long: they are touched when something changed.
    if has_room is not link.has_room:
        link.has_room = has_room
        link.direction.room ^= link.node.bit
    idle = link.chains == 0
    if idle is not link.idle:
        link.idle = idle
        link.direction.idle ^= link.node.bit


# --- slots -----------------------------------------------------------------------------------------------------------


def take_slots(state: State, lease: Lease, *, beside: bool) -> None:
    """Place a lease that was just granted: beside what runs, or behind a transfer that is about to end.

    `beside`: it races another lease to this receiver, so it runs beside that whatever the link carries.
    """
    _follow_if_full(lease.source.up, lease)
    if not beside:
        _follow_if_full(lease.receiver.down, lease)
    _predict(state, lease)
    for link in lease.links:
        if lease.before[link.way] is None:
            link.chains += 1
            link.used += link.share_of(lease)
        refresh(link)


def _follow_if_full(link: Link, lease: Lease) -> None:
    if link.room_now():
        return
    before = link.to_follow()
    assert before is not None
    link.ending.remove(before)
    lease.before[link.way] = before
    before.after[link.way] = lease


def _predict(state: State, lease: Lease) -> None:
    slow = link_rates.slow_rate(state)
    shares = [link.trusted_speed(slow) or UNLIMITED_BYTES_S for link in lease.links]
    lease.share = min(shares)
    rates = [rate for link in lease.links if (rate := _expected_rate(link, lease.before[link.way]))]
    rate = min(rates) if rates else state.typical_rate
    if rate:
        lease.duration_s = lease.size_bytes / rate


def _expected_rate(link: Link, behind: Lease | None) -> float | None:
    """Rate of one more transfer as far as this end knows; `behind` is the one it follows."""
    speed = link.assumed_speed()
    if not speed:
        return None
    if behind is None:
        return max(speed - link.used, speed / (link.chains + 1))
    return max(speed - (link.used - link.share_of(behind)), speed / link.chains)


def lower_share(lease: Lease, share: float) -> None:
    """It takes no more of its links than this, bytes/s."""
    lower = min(lease.share, share)
    for link in lease.links:
        link.used -= link.share_of(lease)
    lease.share = lower
    for link in lease.links:
        link.used += link.share_of(lease)


def leave(link: Link, lease: Lease) -> Lease | None:
    """Give its slot to the one behind it, or up; returns one that now waits for nothing on this link."""
    way = link.way
    link.stalled -= lease.stalled
    before, after = lease.before[way], lease.after[way]
    lease.before[way] = lease.after[way] = None
    if before is not None:
        before.after[way] = after
        if after is not None:
            after.before[way] = before
            return None
        if lease.ending[way]:
            link.ending.remove(lease)
        if before.ending[way] and not before.stalled:
            link.ending.append(before)
        return None
    link.used -= link.share_of(lease)
    if after is not None:
        after.before[way] = None
        link.used += link.share_of(after)
        return after
    link.chains -= 1
    if lease.ending[way] and not lease.stalled:
        link.ending.remove(lease)
    if link.chains == 0:
        link.used = 0.0
    return None
