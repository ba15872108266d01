"""Rule 2, level by level: which link has room for one transfer more, and which transfer takes a slot behind which.

One transfer a link, and one more while the links at the other ends together cannot fill this one. A link that stands
idle between transfers granted in time takes one more, while nobody else is served over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.rules import link_rates
from supernode.scheduler.settings import FILLED_PART, FILLED_PART_LEARNED, IDLE_PART_MAX, UNLIMITED_BYTES_S

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Link, Node
    from supernode.scheduler.state import State

# --- room on a link ------------------------------------------------------------------------------------------------


def room_now(link: Link) -> bool:
    """Whether one more transfer could start at once."""
    if link.chains == 0:
        return link.slots > 0
    if link.chains >= link.slots:
        return False
    if link.chains == 1 and link.idle_part > IDLE_PART_MAX:
        return True
    return link.used < _filled(link)


def room(link: Link) -> bool:
    """Whether one more transfer could start at once or right after one that is about to end."""
    return to_follow(link) is not None or room_now(link)


def to_follow(link: Link) -> Lease | None:
    """The transfer that another may follow: about to end, and what else runs then does not fill the link."""
    if link.chains <= 1:
        return link.ending[0] if link.ending else None
    for lease in link.ending:
        if link.used - share_of(link, lease) < _filled(link):
            return lease
    return None


def room_for_two(link: Link) -> bool:
    """Whether a transfer started now would leave room for another."""
    one = link.used / link.chains if link.chains else link_rates.speed(link)
    return link.chains + 2 <= link.slots and link.used + one < _filled(link)


def _filled(link: Link) -> float:
    """From which use on it takes no more transfers, bytes/s."""
    if link.declared is not None:
        return FILLED_PART * link.declared
    return FILLED_PART_LEARNED * max(link.carries or 0.0, link.assumed)


def share_of(link: Link, lease: Lease) -> float:
    """What the transfer's other end could take or give of this link's rate; all of it while unknown."""
    return min(lease.share, link.declared) if link.declared is not None else lease.share


def _expected_rate(link: Link, behind: Lease | None) -> float | None:
    """Rate of one more transfer as far as this end knows; `behind` is the one it follows."""
    speed = link_rates.assumed_speed(link)
    if not speed:
        return None
    if behind is None:
        return max(speed - link.used, speed / (link.chains + 1))
    return max(speed - (link.used - share_of(link, behind)), speed / link.chains)


# --- masks of nodes with room --------------------------------------------------------------------------------------


def refresh(state: State, node: Node) -> None:
    """Bring the masks of nodes with room up to date after anything about the node's links changed."""
    refresh_up(state, node)
    refresh_down(state, node)


def refresh_up(state: State, node: Node) -> None:
    """The upload half of refresh."""
    link = node.up
    has_room = room(link)
    if has_room and (node.quarantined or node.upload_blocked_until):
        has_room = False
    # Masks of many nodes are long: they are touched when something changed.
    if has_room is not node.has_upload_room:
        node.has_upload_room = has_room
        state.upload_room ^= node.bit
    if (link.chains == 0) is not node.upload_idle:
        node.upload_idle = not node.upload_idle
        state.upload_idle ^= node.bit


def refresh_down(state: State, node: Node) -> None:
    """The download half of refresh."""
    link = node.down
    has_room = room(link)
    if has_room and node.download_blocked_until:
        has_room = False
    if has_room is not node.has_download_room:
        node.has_download_room = has_room
        state.download_room ^= node.bit
    if (link.chains == 0) is not node.download_idle:
        node.download_idle = not node.download_idle
        state.download_idle ^= node.bit


# --- slots -----------------------------------------------------------------------------------------------------------


def take_slots(state: State, lease: Lease, *, beside: bool) -> None:
    """Place a lease that was just granted: beside what runs, or behind a transfer that is about to end.

    `beside`: it races another lease to this receiver, so it runs beside that whatever the link carries.
    """
    up, down = lease.source.up, lease.receiver.down
    if not room_now(up):
        before = to_follow(up)
        assert before is not None
        up.ending.remove(before)
        lease.before_up = before
        before.after_up = lease
    if not beside and not room_now(down):
        before = to_follow(down)
        assert before is not None
        down.ending.remove(before)
        lease.before_down = before
        before.after_down = lease
    _predict(state, lease)
    if lease.before_up is None:
        up.chains += 1
        up.used += share_of(up, lease)
    if lease.before_down is None:
        down.chains += 1
        down.used += share_of(down, lease)
    refresh_up(state, lease.source)
    refresh_down(state, lease.receiver)


def _predict(state: State, lease: Lease) -> None:
    up, down = lease.source.up, lease.receiver.down
    slow = link_rates.slow_rate(state)
    lease.share = min(
        link_rates.trusted_speed(up, slow) or UNLIMITED_BYTES_S,
        link_rates.trusted_speed(down, slow) or UNLIMITED_BYTES_S,
    )
    rate_up, rate_down = _expected_rate(up, lease.before_up), _expected_rate(down, lease.before_down)
    if rate_up is None:
        rate = rate_down or state.typical_rate
    else:
        rate = rate_up if rate_down is None else min(rate_up, rate_down)
    if rate:
        lease.duration_s = lease.size_bytes / rate


def lower_share(lease: Lease, share: float) -> None:
    """It takes no more of its links than this, bytes/s."""
    up, down = lease.source.up, lease.receiver.down
    up.used -= share_of(up, lease)
    down.used -= share_of(down, lease)
    lease.share = min(lease.share, share)
    up.used += share_of(up, lease)
    down.used += share_of(down, lease)


def leave_source(lease: Lease) -> Lease | None:
    """Give its slot at the source to the one behind it, or up; returns one that now waits for nothing there."""
    link, before, after = lease.source.up, lease.before_up, lease.after_up
    if before is not None:
        lease.before_up = lease.after_up = None
        before.after_up = after
        if after is not None:
            after.before_up = before
        elif lease.ending_up:
            link.ending.remove(lease)
        if after is None and not before.stalled and before.ending_up:
            link.ending.append(before)
        return None
    link.used -= share_of(link, lease)
    if after is not None:
        after.before_up = lease.after_up = None
        link.used += share_of(link, after)
        return after
    _give_up_slot(link, lease, lease.ending_up and not lease.stalled)
    return None


def leave_receiver(lease: Lease) -> Lease | None:
    """The same at the receiver."""
    link, before, after = lease.receiver.down, lease.before_down, lease.after_down
    if before is not None:
        before.after_down = lease.before_down = None
        if not before.stalled:
            link.ending.append(before)
        return None
    link.used -= share_of(link, lease)
    if after is not None:
        after.before_down = lease.after_down = None
        link.used += share_of(link, after)
        return after
    _give_up_slot(link, lease, lease.ending_down and not lease.stalled)
    return None


def _give_up_slot(link: Link, lease: Lease, ending: bool) -> None:
    link.chains -= 1
    if ending:
        link.ending.remove(lease)
    if link.chains == 0:
        link.used = 0.0
