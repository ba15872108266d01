"""Rule 8, late transfers: what is overdue makes way for others, and at the end a second source races for its piece.

An overdue transfer hardly uses the link of one of its ends; which one is not known, so both take others beside it, and
nothing waits behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.contract import SEED
from supernode.scheduler.rules import admission, just_in_time

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Node
    from supernode.scheduler.state import State


def timer_due(state: State, lease: Lease) -> bool:
    """The valid timer of a lease has surfaced: whether the lease has expired; else it meant less."""
    if lease.inline or lease.overdue:
        return True
    if lease.duration_s is None and not lease.ending_down:
        return _look_again(state, lease)
    if lease.source.peer == SEED and not lease.ending_up:
        just_in_time.open_source(state, lease)
    elif not lease.ending_down:
        just_in_time.open_receiver(state, lease)
    elif not lease.ending_up:
        just_in_time.open_source(state, lease)
    else:
        lease.overdue = True
        state.wake_receiver(lease.receiver)
        for waiting in (lease, *_waiting_behind(lease), lease.after_down):
            if waiting is not None:
                state.release_first_copy(waiting)
        _make_way(state, lease)
        just_in_time.await_end(state, lease)
    return False


def _look_again(state: State, lease: Lease) -> bool:
    """A transfer that began before anything was measured: its time is known now, or whether it has expired."""
    assert lease.started_at is not None
    rate = lease.source.up.assumed or state.typical_rate
    if rate:
        lease.duration_s = lease.size_bytes / rate
        just_in_time.open_receiver(state, lease)
    elif state.now >= lease.started_at + lease.expires_in_s + state.settings.expiry_grace_s:
        return True
    else:
        state.timers.set_lease(state.now + state.settings.unknown_look_s, lease)
    return False


def _waiting_behind(lease: Lease) -> list[Lease]:
    """What waits behind it at its source, the next first."""
    found = []
    while lease.after_up is not None:
        lease = lease.after_up
        found.append(lease)
    return found


def _make_way(state: State, lease: Lease) -> None:
    """Its links take other transfers beside it; what was granted to follow it would wait or share for long."""
    up, down = lease.source.up, lease.receiver.down
    _lower_share_to_date(state, lease)
    # Two such transfers at one end: that one is the slow one, and a third would get it nothing more.
    if not any(other.stalled for other in lease.source.leases_out.values()):
        up.idle_part = 1.0
    if not any(other.stalled for other in lease.receiver.leases_in.values()):
        down.idle_part = 1.0
    for following in (*reversed(_waiting_behind(lease)), lease.after_down):
        if following is not None and following.number in state.leases:
            just_in_time.cancel(state, following, "the transfer before it is overdue")
    lease.stalled = True
    up.ending.remove(lease)
    down.ending.remove(lease)
    admission.refresh_up(state, lease.source)
    admission.refresh_down(state, lease.receiver)
    state.wake_source(lease.source)


def _lower_share_to_date(state: State, lease: Lease) -> None:
    """It takes no more of its links than its piece would have taken by now."""
    assert lease.started_at is not None
    admission.lower_share(lease, lease.size_bytes / max(state.now - lease.started_at, 1e-6))


def review_stalled(state: State, source: Node, receiver: Node) -> None:
    """A transfer between these two ended: what still runs beside it since long takes even less than it seemed to."""
    if source.up.chains <= 1 and receiver.down.chains <= 1:
        return
    for lease in (*source.leases_out.values(), *receiver.leases_in.values()):
        if lease.stalled:
            _lower_share_to_date(state, lease)
            admission.refresh_up(state, lease.source)
            admission.refresh_down(state, lease.receiver)
            # The end that is not of this transfer may have room now, and nothing else wakes it.
            state.wake_source(lease.source)
            state.wake_receiver(lease.receiver)


# --- the race ------------------------------------------------------------------------------------------------------


def to_race(state: State, node: Node, sources: int) -> tuple[Lease, int] | None:
    """A lease to this node, which has nothing else to fetch, that is far from done; and other sources of its piece."""
    typical = state.typical_rate
    if typical is None or not sources:
        return None
    for lease in node.leases_in.values():
        swarm = lease.member.swarm
        if lease.inline or lease.started_at is None or len(lease.member.leases[lease.piece]) > 1:
            continue
        others = swarm.holders[lease.piece] & sources & ~lease.source.bit
        if not others:
            continue
        typical_s = lease.size_bytes / typical
        left_s = lease.started_at + (lease.duration_s or 0.0) - state.now
        # Of an overdue transfer nobody knows what is left.
        late = lease.overdue and -left_s >= typical_s
        if late or left_s >= state.settings.race_after_piece_times * typical_s:
            return lease, others
    return None


def end_race(state: State, lease: Lease) -> None:
    """The piece has come by this lease: the other source is not needed."""
    racing = lease.member.leases[lease.piece]
    if len(racing) > 1:
        for rival in [other for other in racing if other is not lease]:
            just_in_time.cancel(state, rival, "another source was faster")
