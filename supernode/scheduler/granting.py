"""Granting: what each rule does once a lease has been chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.contract import SEED, GrantLease
from supernode.scheduler.records import DOWN, UP
from supernode.scheduler.rules import admission, first_copies, just_in_time, preheats, rack_copies

if TYPE_CHECKING:
    from supernode.scheduler.records import Member, Node
    from supernode.scheduler.state import State


def grant(state: State, member: Member, piece: int, source: Node) -> None:
    """Lease the piece to the member from `source`; matching has seen that both have room."""
    swarm, receiver = member.swarm, member.node
    races = piece in member.leases
    first_copy = source.peer == SEED and not swarm.rarity.counts[piece] and not receiver.quarantined
    lease = state.add_lease(member, piece, source)
    rack_copies.served(state, receiver)
    if not races:
        rack_copies.reserve(lease)
        copies.lease_out(member, piece)
    if not lease.inline:
        if state.preheat_rate:
            preheats.granted(state, lease)
        admission.take_slots(state, lease, beside=races)
        if first_copy:
            first_copies.granted(state, lease)
    lease.expires_in_s = just_in_time.expiry_s(state, lease)
    ahead, before = lease.before[UP] is not None, lease.before[DOWN]
    just_in_time.start_if_free(state, lease)
    just_in_time.await_turn(state, lease)
    # One source sends the one after the other by itself.
    by_itself = before is not None and ahead and before.source is source
    asked_behind = None if by_itself else just_in_time.asked_behind(state, lease)
    behind = 0 if asked_behind is None else asked_behind.number
    state.counters["granted"] += 1
    text = "lease %x: %d -> %d ahead" if ahead else "lease %x: %d -> %d"
    number = lease.number
    state.stories.of_swarms[swarm.number].append((state.now, piece, text, number, source.peer, receiver.peer))
    state.commands.append(
        GrantLease(
            number, swarm.number, piece, receiver.peer, source.peer, lease.expires_in_s, ahead, behind, lease.inline
        )
    )
