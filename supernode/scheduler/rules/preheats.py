"""Rule 11, preheats yield: what no client waits for takes of links and of the origin what pulls leave.

A swarm is a preheat while nobody in it waits for a client. While somewhere a pull goes on, a node that pulls neither
gets pieces of preheats nor sends any, everybody else serves pulls first, and no preheat is fetched from an origin
beside a pull. Meanwhile the seed sends none either, or the pull's next piece would wait for one that may be much
larger. Where nobody pulls, preheats are swarms like all others, but that a node is sent no more of them a second
than the operator allows: after each piece it rests for as long as that takes at this rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.contract import SEED
from supernode.scheduler.records import SEED_BIT
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supernode.scheduler.records import Lease, Member, Node, Swarm
    from supernode.scheduler.state import State


def review(state: State, swarm: Swarm, peer: int) -> bool:
    """This peer came to the swarm, has all of it, wants something else of it or is gone: is it a preheat, who pulls?

    Returns whether it was none, or is none any more.
    """
    is_preheat = _is_preheat(swarm)
    changed = is_preheat != (swarm.number in state.preheats)
    if changed:
        if is_preheat:
            state.preheats[swarm.number] = swarm
        else:
            del state.preheats[swarm.number]
        for node in state.nodes_of(swarm.wanting):
            node.wake()
    state.pulling = state.pull_fetches = -1
    node_of_peer = state.nodes.get(peer)
    if state.preheats and node_of_peer is not None:
        # If it pulls no more it has to do with preheats again, both ways.
        node_of_peer.wake()
    return changed


def _is_preheat(swarm: Swarm) -> bool:
    """Whether somebody lacks something of it, and nobody for a client."""
    # There may be thousands of members: they are looked at where what is left is on its way to them already.
    if swarm.wanting & swarm.pulling:
        return False
    if swarm.wanting & ~SEED_BIT and not swarm.pulling:
        return True
    found = False
    for peer, member in swarm.members.items():
        if peer != SEED and member.wanted and copies.wants(member) & ~member.have:
            if not member.background:
                return False
            found = True
    return found


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
    """What is leased to the node: pulls; preheats where it has none and does not rest."""
    if not state.preheats:
        return list(node.wanting.values())
    pulls = [member for member in node.wanting.values() if member.swarm.number not in state.preheats]
    if state.preheats_rest & node.bit:
        return pulls
    # What travels inline takes no link.
    return pulls if any(not member.swarm.inline for member in pulls) else list(node.wanting.values())


def partners(state: State, swarm: Swarm, nodes: int) -> int:
    """Those of the nodes that may send pieces of the swarm, or get them."""
    busy = pulling(state) if swarm.number in state.preheats else 0
    if busy and nodes & SEED_BIT and _seed_is_kept_free(state):
        busy |= SEED_BIT
    return nodes & ~busy


def seed_may_send(state: State, swarm: Swarm) -> bool:
    """Whether pieces of the swarm may leave the seed now."""
    return partners(state, swarm, SEED_BIT) != 0


def _seed_is_kept_free(state: State) -> bool:
    """For a pull's next piece from the origin, but where those come much further apart than the seed sends one."""
    if not pulls_are_fetched(state):
        return False
    speed, gap_s = state.seed.up.speed(), state.origin_pace.gap_s
    return not speed or gap_s is None or gap_s * speed < state.settings.preheat_gap_pieces * state.largest_piece_bytes


def receivers(state: State, swarm: Swarm, nodes: int) -> int:
    """Those of the nodes that may get pieces of the swarm now."""
    return partners(state, swarm, nodes) & ~state.preheats_rest if swarm.number in state.preheats else nodes


# --- the operator's rate -------------------------------------------------------------------------------------------


def set_rate(state: State, rate: float) -> None:
    """It counts from now on: who rests for the sake of another rate does so no longer."""
    state.preheat_rate = rate
    for node in state.nodes_of(state.preheats_rest):
        node.preheats_from = state.now
        node.down.wake()
    state.preheats_rest = 0


def granted(state: State, lease: Lease) -> None:
    """There is a rate, and a piece is on its way: where it is a preheat's, its receiver rests."""
    node = lease.receiver
    if lease.member.swarm.number not in state.preheats or node is state.seed:
        return
    node.preheats_from = max(state.now, node.preheats_from) + lease.size_bytes / state.preheat_rate
    state.preheats_rest |= node.bit
    state.timers.set(node.preheats_from, TimerKind.NODE, node.peer)


def rests(state: State, node: Node) -> bool:
    """Whether all that it lacks is to come later."""
    return bool(state.preheats_rest & node.bit) and node.wanting.keys() <= state.preheats.keys()


def end_rest(state: State, node: Node) -> None:
    """Its timer surfaced: it may be sent preheats again, if that was its time."""
    if node.preheats_from <= state.now:
        state.preheats_rest &= ~node.bit


def pulls_are_fetched(state: State) -> bool:
    """Whether an origin is asked for something that clients wait for."""
    if state.pull_fetches < 0:
        fetched = (plan.fetch_id and number not in state.preheats for number, plan in state.plans.items())
        state.pull_fetches = int(any(fetched))
    return state.pull_fetches > 0
