"""A running lease: when its links open for what comes next, when it is overdue, and what makes way for others then.

Sets the lease's one timer; grants nothing and ends nothing but what waits behind an overdue transfer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease
    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node


def start(core: Core, lease: Lease) -> None:
    """The transfer can begin: its deadline counts from here."""
    lease.started_at = core.now
    settings = core.settings
    if lease.inline:
        core.timers.set_lease(core.now + lease.expires_in_s + settings.expiry_grace_s, lease)
        return
    if lease.ending_up and lease.after_up is None:
        # Nothing was promised behind it while it waited: now that is decided in its time, as for any other, or whoever
        # just got a piece and is free this instant would wait for all of this one.
        lease.ending_up = False
        lease.source.up.open_ends.remove(lease)
        core.book.refresh_up(lease.source)
    lease.area_up = lease.source.up.begin(core.now)
    lease.area_down = lease.receiver.down.begin(core.now)
    if lease.duration_s is None and core.book.typical_flow:
        # Granted when nothing was measured yet.
        lease.duration_s = lease.size_bytes / core.book.typical_flow
    if lease.member.swarm.wanting in (0, lease.receiver.bit):
        # Nobody competes: its next piece may as well be decided now.
        _open_down(core, lease)
        _open_up(core, lease)
    elif lease.duration_s is None:
        # Nothing at all is measured yet: nothing is granted behind it until something is.
        core.timers.set_lease(core.now + settings.unknown_look_s, lease)
    else:
        _await_opening(core, lease)


def _ahead_s(core: Core, duration_s: float) -> float:
    """How long before its source's end a transfer is granted that follows one of this duration."""
    settings = core.settings
    ahead_s = settings.ahead_part * duration_s
    least_s = settings.reaction_part * core.book.reaction_s
    return ahead_s if ahead_s > least_s else least_s


def beside(core: Core, lease: Lease, rate: float) -> tuple[float, float]:
    """Mean number of transfers like it (of `rate` bytes/s) at its source and at its receiver since it started, itself
    included: one whose other end is known to be slower counts for as much less as it is slower.
    """
    assert lease.started_at is not None
    elapsed_s = core.now - lease.started_at
    up, down = lease.source.up, lease.receiver.down
    if elapsed_s <= 0.0:
        return float(up.running), float(down.running)
    beside_up = (up.area(core.now) - lease.area_up) / elapsed_s
    beside_down = (down.area(core.now) - lease.area_down) / elapsed_s
    if up.running > 1:
        beside_up -= _slower(core, lease, rate, lease.source.leases_out)
    if down.running > 1:
        beside_down -= _slower(core, lease, rate, lease.receiver.leases_in)
    return max(1.0, beside_up), max(1.0, beside_down)


def _slower(core: Core, lease: Lease, rate: float, leases: dict[int, Lease]) -> float:
    """By how much those of the leases that run beside it count for less than a transfer like it."""
    assert lease.started_at is not None
    less = 0.0
    for other in leases.values():
        if other is not lease and other.started_at is not None and other.share < rate:
            overlap_s = core.now - max(other.started_at, lease.started_at)
            less += overlap_s / (core.now - lease.started_at) * (1.0 - other.share / rate)
    return less


def _open_down(core: Core, lease: Lease) -> None:
    """The transfer is about to end: another may be granted to follow it at its receiver."""
    lease.ending_down = True
    lease.receiver.down.open_ends.append(lease)
    core.book.refresh_down(lease.receiver)
    core.wake_receiver(lease.receiver)
    if lease.source.peer == SEED:
        # It was opened for first copies earlier; now for others too.
        core.wake_source(lease.source)
    _await_opening(core, lease)


def _open_up(core: Core, lease: Lease) -> None:
    """The same at its source."""
    if lease.ending_up:
        return
    lease.ending_up = True
    lease.source.up.open_ends.append(lease)
    core.book.refresh_up(lease.source)
    core.wake_source(lease.source)
    _await_opening(core, lease)


def _await_opening(core: Core, lease: Lease) -> None:
    """Its next timer: when the link of one end is to be given what comes next, and after both its own end."""
    if lease.ending_down and lease.ending_up:
        _await_end(core, lease)
    elif lease.duration_s is not None:
        assert lease.started_at is not None
        down_s, up_s = _openings(core, lease)
        opens_s = up_s if lease.ending_down else down_s if lease.ending_up else min(down_s, up_s)
        core.timers.set_lease(max(core.now, opens_s), lease)


def _openings(core: Core, lease: Lease) -> tuple[float, float]:
    """When a next transfer is looked for to follow this one, whose duration is known: at its receiver, its source.

    The seed's link must not idle while it has first copies to send: it looks earlier, and its request can wait.
    """
    assert lease.started_at is not None
    assert lease.duration_s is not None
    end_s = lease.started_at + lease.duration_s
    ahead_s = _ahead_s(core, lease.duration_s)
    down_s = end_s - core.settings.choice_factor * ahead_s
    if lease.source.peer == SEED:
        return down_s, min(end_s - core.settings.seed_ahead_part * lease.duration_s, down_s)
    return down_s, end_s - ahead_s


def _await_end(core: Core, lease: Lease) -> None:
    """Next look at a transfer that is about to end: when it is overdue, and then at its deadline."""
    assert lease.started_at is not None
    deadline = lease.started_at + lease.expires_in_s + core.settings.expiry_grace_s
    if lease.duration_s is not None and not lease.overdue:
        known = lease.receiver.down.speed() and lease.source.up.speed() >= lease.source.up.hoped
        late_part = core.settings.race_after_piece_times if known else core.settings.unknown_late_part
        patience_s = (1.0 + late_part) * lease.duration_s
        if lease.first_copy:
            # A busy node takes some milliseconds longer: no reason for the seed to send the piece again.
            patience_s = max(patience_s, core.settings.first_copy_wait_s)
        deadline = min(deadline, max(lease.started_at + patience_s, core.now + core.book.reaction_s))
    else:
        lease.overdue = True
    core.timers.set_lease(deadline, lease)


def due(core: Core, lease: Lease) -> bool:
    """The valid timer of a lease has surfaced: whether the lease has expired; else it meant less."""
    if lease.inline or lease.overdue:
        return True
    if lease.duration_s is None and not lease.ending_down:
        return _look_again(core, lease)
    if lease.source.peer == SEED and not lease.ending_up:
        _open_up(core, lease)
    elif not lease.ending_down:
        _open_down(core, lease)
    elif not lease.ending_up:
        _open_up(core, lease)
    else:
        lease.overdue = True
        core.wake_receiver(lease.receiver)
        for held_up in (lease, *_chain(lease), lease.after_down):
            if held_up is not None:
                core.let_seed_go(held_up)
        _make_way(core, lease)
        _await_end(core, lease)
    return False


def _look_again(core: Core, lease: Lease) -> bool:
    """A transfer that began before anything was measured: its time is known now, or whether it has expired."""
    assert lease.started_at is not None
    flow = lease.source.up.hoped or core.book.typical_flow
    if flow:
        lease.duration_s = lease.size_bytes / flow
        _open_down(core, lease)
    elif core.now >= lease.started_at + lease.expires_in_s + core.settings.expiry_grace_s:
        return True
    else:
        core.timers.set_lease(core.now + core.settings.unknown_look_s, lease)
    return False


def _chain(lease: Lease) -> list[Lease]:
    """What waits behind it at its source, the next first."""
    found = []
    while lease.after_up is not None:
        lease = lease.after_up
        found.append(lease)
    return found


def _take_for_slow(core: Core, lease: Lease) -> None:
    """It takes no more of its links than its piece would have taken by now."""
    assert lease.started_at is not None
    up, down = lease.source.up, lease.receiver.down
    up.used -= up.share(lease)
    down.used -= down.share(lease)
    lease.share = min(lease.share, lease.size_bytes / max(core.now - lease.started_at, 1e-6))
    up.used += up.share(lease)
    down.used += down.share(lease)


def look_at_stuck(core: Core, source: Node, receiver: Node) -> None:
    """A transfer between these two ended: what still runs beside it since long takes even less than it seemed to."""
    for lease in (*source.leases_out.values(), *receiver.leases_in.values()):
        if lease.stuck:
            _take_for_slow(core, lease)
            core.book.refresh_up(lease.source)
            core.book.refresh_down(lease.receiver)
            # The end that is not of this transfer may have room now, and nothing else wakes it.
            core.wake_source(lease.source)
            core.wake_receiver(lease.receiver)


def _make_way(core: Core, lease: Lease) -> None:
    """An overdue transfer hardly uses the link of one of its ends: that one takes another beside it.

    Which one is not known, and what was granted to follow it at either end would wait or share for long.
    """
    up, down = lease.source.up, lease.receiver.down
    _take_for_slow(core, lease)
    # Two such transfers at one end: that one is the slow one, and a third would get it nothing more.
    if not any(other.stuck for other in lease.source.leases_out.values()):
        up.see_idle()
    if not any(other.stuck for other in lease.receiver.leases_in.values()):
        down.see_idle()
    for following in (*reversed(_chain(lease)), lease.after_down):
        if following is not None and following.number in core.leases:
            core.cancel(following, "the transfer before it is overdue")
    lease.stuck = True
    up.open_ends.remove(lease)
    down.open_ends.remove(lease)
    core.book.refresh_up(lease.source)
    core.book.refresh_down(lease.receiver)
    core.wake_source(lease.source)
