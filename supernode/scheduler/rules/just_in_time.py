"""Rule 1, just in time: each transfer is followed by the next without a gap, at its source and at its receiver.

A lease is granted shortly before the transfer ahead of it ends, waits for that one, and starts when it is over. Here a
lease starts, opens its links for what follows, and ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.contract import SEED, CancelLease
from supernode.scheduler.records import DOWN, UP
from supernode.scheduler.rules import admission, link_rates, rack_copies
from supernode.scheduler.settings import WAITING_MAX

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Link
    from supernode.scheduler.state import State

# --- start ---------------------------------------------------------------------------------------------------------


def expiry_s(state: State, lease: Lease) -> float:
    """How long the receiver has, from the start of the transfer."""
    settings = state.settings
    patience_s = settings.expiry_unknown_s
    only_assumed = lease.source.up.assumed and lease.source.up.carries is None
    if not lease.source.served:
        patience_s = min(patience_s, max(settings.expiry_unserved_s, lease.size_bytes / settings.unserved_rate_bytes_s))
    if lease.duration_s is not None and not only_assumed:
        patience_s = max(settings.expiry_min_s, settings.expiry_factor * lease.duration_s)
    if not lease.receiver.timeouts:
        return patience_s
    # Time-outs teach nothing of a link but that it needs longer.
    return min(patience_s * 2.0 ** min(lease.receiver.timeouts, 16), max(patience_s, settings.expiry_max_s))


def start_if_free(state: State, lease: Lease) -> None:
    """Start the transfer if it waits for none: its deadline counts from here."""
    if lease.before[UP] is not None or lease.before[DOWN] is not None:
        return
    lease.started_at = state.now
    settings = state.settings
    if lease.inline:
        state.timers.set_lease(state.now + lease.expires_in_s + settings.expiry_grace_s, lease)
        return
    up, down = lease.links
    if lease.ending[UP] and lease.after[UP] is None:
        # Nothing was promised behind it while it waited: now that is decided in its time, as for any other, or whoever
        # just got a piece and is free this instant would wait for all of this one.
        lease.ending[UP] = False
        up.ending.remove(lease)
        admission.refresh(up)
    for link in lease.links:
        lease.area[link.way] = link_rates.begin(link, state.now)
    if lease.duration_s is None and state.typical_rate:
        # Granted when nothing was measured yet.
        lease.duration_s = lease.size_bytes / state.typical_rate
    if lease.ending[UP] and lease.ending[DOWN]:
        # Others were let follow over both links while it waited.
        await_end(state, lease)
    elif lease.member.swarm.wanting in (0, lease.receiver.bit):
        # Nobody competes: its next piece may as well be decided now.
        open_link(state, lease, down)
        open_link(state, lease, up)
    elif lease.duration_s is None:
        # Nothing at all is measured yet: nothing is granted behind it until something is.
        state.timers.set_lease(state.now + settings.unknown_look_s, lease)
    else:
        _await_opening(state, lease)


# --- what may follow -----------------------------------------------------------------------------------------------


def open_link(state: State, lease: Lease, link: Link) -> None:
    """The transfer is about to end: another may be granted to follow it over this link of its two."""
    if lease.ending[link.way]:
        return
    lease.ending[link.way] = True
    link.ending.append(lease)
    admission.refresh(link)
    link.wake()
    if link.way == DOWN and lease.source.peer == SEED:
        # It was opened for first copies earlier; now for others too.
        lease.source.up.wake()
    _await_opening(state, lease)


def _await_opening(state: State, lease: Lease) -> None:
    """Its next timer: when the link of one end is to be given what comes next, and after both its own end."""
    if lease.ending[DOWN] and lease.ending[UP]:
        await_end(state, lease)
    elif lease.duration_s is not None:
        assert lease.started_at is not None
        down_s, up_s = _openings(state, lease)
        opens_s = up_s if lease.ending[DOWN] else down_s if lease.ending[UP] else min(down_s, up_s)
        state.timers.set_lease(max(state.now, opens_s), lease)


def _openings(state: State, lease: Lease) -> tuple[float, float]:
    """When a next transfer is looked for to follow this one, whose duration is known: at its receiver, its source.

    The seed's link must not idle while it has first copies to send: it looks earlier, and its request can wait.
    """
    assert lease.started_at is not None
    assert lease.duration_s is not None
    settings = state.settings
    end_s = lease.started_at + lease.duration_s
    ahead_s = _ahead_s(state, lease.duration_s)
    down_s = end_s - settings.choice_factor * ahead_s
    if lease.source.peer == SEED:
        return down_s, min(end_s - settings.seed_ahead_part * lease.duration_s, down_s)
    return down_s, end_s - ahead_s


def _ahead_s(state: State, duration_s: float) -> float:
    """How long before the end of a transfer the next is granted."""
    settings = state.settings
    return max(settings.ahead_part * duration_s, settings.reaction_part * state.reaction_s)


def await_turn(state: State, lease: Lease) -> None:
    """It waits for another. Where it is over before the next grant becomes a transfer, that one is looked for now."""
    if lease.started_at is not None or lease.inline or lease.duration_s is None:
        return
    ahead_s = _ahead_s(state, lease.duration_s)
    if ahead_s > lease.duration_s:
        opens_s = _end_s(state, lease) - ahead_s
        if opens_s <= state.now:
            open_waiting(state, lease)
        else:
            state.timers.set_lease(opens_s, lease)


def open_waiting(state: State, lease: Lease) -> None:
    """Let others be granted to follow a lease that itself waits."""
    for link in lease.links:
        if not lease.ending[link.way] and lease.after[link.way] is None and _waiting(lease, link.way) < WAITING_MAX:
            lease.ending[link.way] = True
            link.ending.append(lease)
            admission.refresh(link)
            link.wake()


def asked_behind(state: State, lease: Lease) -> Lease | None:
    """The lease at its receiver that is to be nearly over before it is asked for: the one that it waits for there, or
    where that is over before a request is answered, one that is over earlier; None to ask at once.
    """
    before = lease.before[DOWN]
    left_s = state.reaction_s
    while before is not None and before.duration_s is not None and left_s > before.duration_s / 2:
        left_s -= before.duration_s
        before = before.before[DOWN]
    return before


def _waiting(lease: Lease, way: int) -> int:
    """How many it waits for over this link, one behind the other."""
    count = 0
    before = lease.before[way]
    while before is not None:
        count += 1
        before = before.before[way]
    return count


def _end_s(state: State, lease: Lease) -> float:
    """When its transfer will be over as far as can be told.

    Each lease that it waits for is looked at once: over two links there are many ways to the same ones.
    """
    ends_s: dict[int, float] = {}
    open_ones = [lease]
    while open_ones:
        one = open_ones[-1]
        duration_s = one.duration_s or 0.0
        if one.started_at is not None:
            ends_s[one.number] = max(state.now, one.started_at + duration_s)
        else:
            before = [each for each in one.before if each is not None]
            unknown = [each for each in before if each.number not in ends_s]
            if unknown:
                open_ones += unknown
                continue
            ends_s[one.number] = duration_s + max(ends_s[each.number] for each in before)
        open_ones.pop()
    return ends_s[lease.number]


def await_end(state: State, lease: Lease) -> None:
    """Next look at a transfer that is about to end: when it is overdue, and then at its deadline."""
    assert lease.started_at is not None
    deadline = lease.started_at + lease.expires_in_s + state.settings.expiry_grace_s
    if lease.duration_s is not None and not lease.overdue:
        up = lease.source.up
        known = lease.receiver.down.speed() and up.speed() >= up.assumed
        late_part = state.settings.race_after_piece_times if known else state.settings.unknown_late_part
        patience_s = max((1.0 + late_part) * lease.duration_s, state.settings.late_min_s)
        deadline = min(deadline, max(lease.started_at + patience_s, state.now + state.reaction_s))
    else:
        lease.overdue = True
    state.timers.set_lease(deadline, lease)


# --- end -----------------------------------------------------------------------------------------------------------


def end(state: State, lease: Lease, *, stored: bool) -> None:
    """End the lease: slots pass on to what waited, the piece becomes HELD or (no rival left) MISSING."""
    state.release_first_copy(lease)
    last = state.remove_lease(lease)
    if not lease.inline:
        if lease.started_at is not None:
            for link in lease.links:
                link_rates.end(link, state.now)
        for link in lease.links:
            following = admission.leave(link, lease)
            if following is not None:
                start_if_free(state, following)
            admission.refresh(link)
    rack_copies.end_reservation(state, lease, stored=stored)
    if stored:
        copies.lease_done(lease.member, lease.piece)
    elif last:
        copies.lease_back(lease.member, lease.piece)
    lease.receiver.wake()
    lease.source.wake()


def cancel(state: State, lease: Lease, reason: str) -> None:
    """End the lease without its piece and tell the receiver."""
    end(state, lease, stored=False)
    state.counters["cancelled"] += 1
    state.record(lease.member.swarm.number, lease.piece, "lease %x cancelled: %s", lease.number, reason)
    state.commands.append(CancelLease(lease.number, lease.receiver.peer, reason))
