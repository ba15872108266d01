"""Rule 3, first copies first: the seed's link goes to pieces that only the seed has, and never idles for want of them.

The seed promises its next first copy half a transfer ahead, to a node that receives nothing. Further copies take what
is left, and never delay the next piece from the origin by more than half a piece time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler.contract import SEED
from supernode.scheduler.masks import any_bit, at_most
from supernode.scheduler.records import DOWN, UP
from supernode.scheduler.rules import admission, link_rates, preheats, rack_copies, readers
from supernode.scheduler.settings import CROWD, SAMPLE
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.records import Choice, Lease, Link, Member, Node, Swarm
    from supernode.scheduler.state import State

# --- what the seed may send now ------------------------------------------------------------------------------------


def from_seed(state: State, receivers: int) -> Choice | None:
    """The seed's next first copy; it has room. Swarms as they were opened."""
    for swarm in preheats.in_order(state):
        if state.preheats and not preheats.seed_may_send(state, swarm):
            continue
        wanting = preheats.receivers(state, swarm, swarm.wanting & receivers)
        # Thousands of swarms may be open, of which hardly any has something for anybody: the cheap questions first.
        fresh = fresh_pieces(swarm) & swarm.needed_by_any if wanting and not swarm.inline else 0
        waiting = receivers_now(state, wanting) if fresh else 0
        # Nearly always the first will do; those that wait may lack others only.
        for piece in indices(fresh if waiting else 0):
            candidates = rack_copies.may_take(state, swarm, state.seed, piece, swarm.lacking[piece] & waiting)
            if candidates:
                member = _choose_receiver(state, swarm, candidates)
                return member, readers.in_order(member, fresh & member.need), state.seed
    return None


def for_receiver(state: State, node: Node) -> Choice | None:
    """A first copy for this node; it and the seed have room."""
    for member in preheats.wanting(state, node):
        swarm = member.swarm
        fresh = fresh_pieces(swarm) & member.need
        if not fresh or swarm.inline or (state.preheats and not preheats.seed_may_send(state, swarm)):
            continue
        if receivers_now(state, swarm.wanting & state.down.room) & node.bit:
            return member, readers.in_order(member, fresh), state.seed
    return None


def fresh_pieces(swarm: Swarm) -> int:
    """Pieces that the seed has and nobody else holds or is being sent."""
    return swarm.rarity.levels[0] & swarm.members[SEED].have


def receivers_now(state: State, waiting: int) -> int:
    """Of nodes with download room those that the seed may promise a first copy now; the seed has room, too.

    Behind one that has not begun one more, should the request for that be lost, while there are nodes to spare: some
    receive nothing, but not so many as where a swarm begins, when others are about to serve them.
    """
    up = state.seed.up
    if up.room_now() or up.ending[0].started_at is not None:
        return waiting
    idle = waiting & state.down.idle
    settings, spare = state.settings, idle.bit_count()
    return idle if settings.seed_spare_nodes <= spare <= settings.seed_spare_part * len(state.nodes) else 0


def seed_promises_early(state: State) -> bool:
    """Whether the seed has room for first copies only: what it sends now will not end shortly."""
    up = state.seed.up
    return up.has_room and not up.room_now() and not up.ending[0].ending[DOWN]


def further_copy_allowed(state: State) -> bool:
    """Only if that delays the next piece from the origin by at most half a piece time.

    A piece that is overdue by more than that is waited for no longer.
    """
    if not state.fetches:
        return True
    up, pace = state.seed.up, state.origin_pace
    next_at = pace.next_at()
    speed = up.speed()
    if next_at is None or not speed or up.room_for_two():
        return True
    piece_time_s = state.largest_piece_bytes / speed
    if next_at - state.now >= piece_time_s / 2 or state.now - next_at >= piece_time_s / 2:
        return True
    until = next_at + piece_time_s / 2
    if pace.woken_for != until:
        pace.woken_for = until
        state.timers.set(until, TimerKind.NODE, SEED)
    return False


def piece_from_origin(state: State, size_bytes: int) -> None:
    """A piece came from the origin: the seed's link is assumed to be as fast until transfers tell."""
    state.origin_pace.arrived(state.now, size_bytes)
    link_rates.assume_rate(state.seed.up, state.origin_pace.rate(state.now))
    admission.refresh(state.seed.up)


# --- once one is granted -------------------------------------------------------------------------------------------


def granted(state: State, lease: Lease) -> None:
    """The seed sends a first copy: other nodes wait for that one, and one more may be promised behind it."""
    lease.member.first_copies += 1
    _expect(state, lease)
    _let_one_more_follow(lease)


def _expect(state: State, lease: Lease) -> None:
    """If its receiver can soon pass it on, the seed sends no further copy."""
    settings = state.settings
    if lease.duration_s is None:
        return
    typical_s = lease.size_bytes / state.typical_rate if state.typical_rate else lease.duration_s
    if lease.duration_s <= max(settings.first_copy_wait_s, settings.race_after_piece_times * typical_s):
        lease.first_copy = True
        lease.member.swarm.first_copy_pending |= 1 << lease.piece


def _let_one_more_follow(lease: Lease) -> None:
    """A first copy that waits for a running transfer of the seed: its request may be lost, the next one not."""
    before = lease.before[UP]
    if before is not None and before.started_at is not None:
        lease.ending[UP] = True
        lease.source.up.ending.append(lease)
        admission.refresh(lease.source.up)


# --- who gets it ---------------------------------------------------------------------------------------------------


def _choose_receiver(state: State, swarm: Swarm, candidates: int) -> Member:
    """One that receives nothing now takes it at the full rate, and a fast uplink passes it on soonest.

    Of equally fast ones, if it will wait for most of a transfer, the one that can best afford that; else, while the
    origin still sends and sets the pace, who got the fewest: so the work of passing on is shared.
    """
    idle = candidates & state.down.idle
    waits = bool(idle) and seed_promises_early(state)
    nodes = idle or candidates
    if waits and at_most(nodes, CROWD):
        rows = list(indices(nodes))
    else:
        rows = [any_bit(nodes, state.rng) for _ in range(CROWD if waits else SAMPLE)]
    best = swarm.at_row[rows[0]]
    for row in rows[1:]:
        other = swarm.at_row[row]
        if not (waits or swarm.fetching) or not _about_as_fast(state, best.node.up, other.node.up):
            better = other.node.up.speed() > best.node.up.speed()
        elif waits:
            better = other.have.bit_count() > best.have.bit_count()
        else:
            better = other.first_copies < best.first_copies
        if better:
            best = other
    return best


def _about_as_fast(state: State, one: Link, other: Link) -> bool:
    """Whether the rates of two links are alike as far as known."""
    slower, faster = sorted((one.speed(), other.speed()))
    return not slower or faster <= state.settings.alike_factor * slower
