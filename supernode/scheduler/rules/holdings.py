"""What follows when copies, members and wants come and go: leases end, the seed wants more, the origin is asked.

Serves rules 9 and 10; decides nothing of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.rules import just_in_time, origin_fetches, preheats
from supernode.scheduler.story import WHOLE

if TYPE_CHECKING:
    from supernode.scheduler.records import Member, Swarm
    from supernode.scheduler.state import State


def lose(state: State, member: Member, pieces: int, reason: str) -> None:
    """HELD -> MISSING, and what is being fetched from there must come from elsewhere."""
    if not pieces:
        return
    for lease in list(member.node.up.leases.values()):
        if lease.member.swarm is member.swarm and pieces >> lease.piece & 1:
            just_in_time.cancel(state, lease, reason)
    copies.drop(member, pieces)


def after_change(state: State, swarm: Swarm, peer: int) -> None:
    """Members came, went or lost pieces: what the seed wants, who is elected and what is missing may differ."""
    if preheats.review(state, swarm, peer):
        origin_fetches.review_preheats(state)
    seed = swarm.seed
    wanted = swarm.leased_to_peers > 0 or bool(swarm.wanting & ~seed.node.bit)
    if wanted != seed.wanted:
        seed.wanted = wanted
        copies.refresh_need(seed)
    # It wants what some peer wants: all, or what is read of it.
    whole = not swarm.asked or any(
        member.wanted and not member.ranges for member in swarm.members.values() if member is not seed
    )
    copies.ask(seed, 0 if whole else swarm.asked, ranges=not whole)
    seed.node.wake()
    plan = state.plans[swarm.number]
    if plan.elected == peer:
        member = swarm.members.get(peer)
        if member is None or not member.wanted:
            # Who wants nothing any more because it has everything did what it was elected for.
            offered, _, _ = plan.offers.get(peer, (0, 0, 0.0))
            has_all = member is not None and member.have | offered == swarm.full
            origin_fetches.tried(state, swarm, peer, ok=has_all)
    origin_fetches.review(state, swarm)


def clear(state: State, swarm: Swarm, reason: str) -> None:
    """Nobody holds, wants or is sent anything of it."""
    origin_fetches.forget(state, swarm)
    for member in swarm.members.values():
        copies.want(member, wanted=False)
        member.reader = None
        copies.ask(member, 0, ranges=False)
    for member in list(swarm.members.values()):
        for lease in [lease for racing in member.leases.values() for lease in racing]:
            just_in_time.cancel(state, lease, reason)
    for member in swarm.members.values():
        copies.drop(member, member.have)
        # Who pulled it may have to do with preheats again.
        preheats.review(state, swarm, member.node.peer)
    swarm.unvouched = 0
    state.record(swarm.number, WHOLE, "%s", reason)
