"""Rule 8, late transfers: what is overdue makes way for others, and at the end a second source races for its piece.

An overdue transfer hardly uses the link of one of its ends; which one is not known, so both take others beside it, and
nothing waits behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.contract import SEED
from supernode.scheduler.records import DOWN, UP
from supernode.scheduler.rules import admission, just_in_time

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Node
    from supernode.scheduler.state import State


def timer_due(state: State, lease: Lease) -> bool:
    """The valid timer of a lease has surfaced: whether the lease has expired; else it meant less."""
    if lease.inline:
        return True
    if lease.overdue:
        return _review(state, lease)
    if lease.started_at is None:
        just_in_time.open_waiting(state, lease)
        return False
    up, down = lease.links
    if lease.duration_s is None and not lease.ending[DOWN]:
        return _look_again(state, lease)
    if lease.source.peer == SEED and not lease.ending[UP]:
        just_in_time.open_link(state, lease, up)
    elif not lease.ending[DOWN]:
        just_in_time.open_link(state, lease, down)
    elif not lease.ending[UP]:
        just_in_time.open_link(state, lease, up)
    else:
        lease.overdue = True
        down.wake()
        for waiting in (lease, *_waiting_behind(lease, UP), *_waiting_behind(lease, DOWN)):
            state.release_first_copy(waiting)
        _make_way(state, lease)
        _await_review(state, lease)
    return False


def _review(state: State, lease: Lease) -> bool:
    """Whether it has expired. If not it is seen to take even less: several of them must not fill a link for long.

    That is for receivers that may be taking nothing; a slow one that gets on would have too much at a time.
    """
    if state.now >= _deadline(state, lease):
        return True
    _lower_share_to_date(state, lease)
    for link in lease.links:
        admission.refresh(link)
        link.wake()
    _await_review(state, lease)
    return False


def _await_review(state: State, lease: Lease) -> None:
    assert lease.started_at is not None
    due_s = _deadline(state, lease)
    if not lease.receiver.receives:
        # When it will have lasted twice as long.
        due_s = min(due_s, 2 * state.now - lease.started_at)
    state.timers.set_lease(due_s, lease)


def _deadline(state: State, lease: Lease) -> float:
    assert lease.started_at is not None
    return lease.started_at + lease.expires_in_s + state.settings.expiry_grace_s


def _look_again(state: State, lease: Lease) -> bool:
    """A transfer that began before anything was measured: its time is known now, or whether it has expired."""
    assert lease.started_at is not None
    rate = lease.source.up.assumed or state.typical_rate
    if rate:
        lease.duration_s = lease.size_bytes / rate
        just_in_time.open_link(state, lease, lease.receiver.down)
    elif state.now >= lease.started_at + lease.expires_in_s + state.settings.expiry_grace_s:
        return True
    else:
        state.timers.set_lease(state.now + state.settings.unknown_look_s, lease)
    return False


def _waiting_behind(lease: Lease, way: int) -> list[Lease]:
    """What waits behind it at its source, or its receiver, the next first."""
    found = []
    while (after := lease.after[way]) is not None:
        found.append(after)
        lease = after
    return found


def _make_way(state: State, lease: Lease) -> None:
    """Its links take other transfers beside it; what was granted to follow it would wait or share for long."""
    _lower_share_to_date(state, lease)
    for link in lease.links:
        # Two such transfers at one end: that one is the slow one, and a third would get it nothing more.
        if not any(other.stalled for other in link.leases.values()):
            link.idle_part = 1.0
    for following in (*reversed(_waiting_behind(lease, UP)), *reversed(_waiting_behind(lease, DOWN))):
        if following.number in state.leases:
            just_in_time.cancel(state, following, "the transfer before it is overdue")
    lease.stalled = True
    for link in lease.links:
        link.stalled += 1
        link.ending.remove(lease)
        admission.refresh(link)
    lease.source.up.wake()


def _lower_share_to_date(state: State, lease: Lease) -> None:
    """It takes no more of its links than its piece would have taken by now."""
    assert lease.started_at is not None
    admission.lower_share(lease, lease.size_bytes / max(state.now - lease.started_at, 1e-6))


def review_stalled(state: State, ended: Lease) -> None:
    """A transfer ended: what still runs beside it since long takes even less than it seemed to."""
    up, down = ended.links
    if up.chains <= 1 and down.chains <= 1:
        return
    for lease in (*up.leases.values(), *down.leases.values()):
        if lease.stalled:
            _lower_share_to_date(state, lease)
            for link in lease.links:
                admission.refresh(link)
                # The end that is not of this transfer may have room now, and nothing else wakes it.
                link.wake()


# --- the race ------------------------------------------------------------------------------------------------------


def to_race(state: State, node: Node) -> tuple[Lease, int] | None:
    """A lease to this node, which has nothing else to fetch, that is far from done; and other sources of its piece."""
    typical, sources = state.typical_rate, state.sources_for(node)
    if typical is None or not sources or node.down.chains >= node.down.slots:
        return None
    for lease in node.down.leases.values():
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
