"""Rule 11, preheats yield: what no client waits for takes of links and of the origin what pulls leave.

A swarm is a preheat while nobody in it waits for a client. While somewhere a pull goes on, a node that pulls neither
gets pieces of preheats nor sends any, everybody else serves pulls first, and no preheat is fetched from an origin
beside a pull. Where nobody pulls, preheats are swarms like all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.contract import SEED
from supernode.scheduler.records import SEED_BIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supernode.scheduler.records import Member, Node, Swarm
    from supernode.scheduler.state import State


def review(state: State, swarm: Swarm) -> None:
    """Members came, went or want something else: is it a preheat, and what follows for all preheats."""
    is_preheat = False
    for peer, member in swarm.members.items():
        if peer != SEED and member.wanted and copies.wants(member) & ~member.have:
            is_preheat = member.background
            if not is_preheat:
                break
    was_preheat = swarm.number in state.preheats
    if is_preheat != was_preheat:
        if is_preheat:
            state.preheats[swarm.number] = swarm
        else:
            del state.preheats[swarm.number]
            state.wake_receivers(swarm.wanting)
    state.pulling = -1
    # Whoever pulled until now may have to do with them again.
    for preheat in state.preheats.values():
        state.wake_receivers(preheat.wanting)


def pulling(state: State) -> int:
    """Nodes (mask) that something is to be leased to for a client; 0 where that matters to no preheat."""
    if not state.preheats:
        return 0
    if state.pulling < 0:
        found = 0
        for swarm in state.swarms.values():
            if swarm.wanting and swarm.number not in state.preheats and not swarm.inline:
                found |= swarm.wanting
        state.pulling = found & ~SEED_BIT
    return state.pulling


def pulls_first(state: State, members: list[Member]) -> list[Member]:
    """Those of preheats behind all others."""
    if not state.preheats:
        return members
    return sorted(members, key=lambda member: member.swarm.number in state.preheats)


def in_order(state: State) -> Iterable[Swarm]:
    """All swarms as they were opened, preheats behind all others."""
    if not state.preheats:
        return state.swarms.values()
    pulls = [swarm for swarm in state.swarms.values() if swarm.number not in state.preheats]
    return [*pulls, *state.preheats.values()]


def wanting(state: State, node: Node) -> list[Member]:
    """What is leased to the node: pulls; preheats where it has none."""
    if not state.preheats:
        return list(node.wanting.values())
    pulls = [member for member in node.wanting.values() if member.swarm.number not in state.preheats]
    # What travels inline takes no link.
    return pulls if any(not member.swarm.inline for member in pulls) else list(node.wanting.values())


def partners(state: State, swarm: Swarm, nodes: int) -> int:
    """Those of the nodes that may send pieces of the swarm, or get them."""
    return nodes & ~pulling(state) if swarm.number in state.preheats else nodes
