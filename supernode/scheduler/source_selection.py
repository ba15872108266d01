"""The half of the policy for a node with upload room: which piece it sends next and to whom. See policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler import policy
from supernode.scheduler.contract import SEED
from supernode.scheduler.nodes import like

if TYPE_CHECKING:
    from supernode.scheduler.leases import Core
    from supernode.scheduler.link import Link
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.policy import Choice
    from supernode.scheduler.swarm import Member, Swarm

# Receivers compared before one is taken: of a crowd of more than so many, some at random.
_SAMPLE: Final = 3
_CROWD: Final = 16


def for_source(core: Core, node: Node, seed_free: bool) -> Choice | None:
    """The best lease from a node with upload room."""
    if node.peer == SEED:
        return _for_seed(core, node, seed_free)
    receivers = core.book.free_down
    if node.takes:
        receivers ^= node.bit
    # Who wants nothing is no receiver anyway.
    if receivers & policy.SEED_BIT and core.book.at(0).wanting:
        receivers ^= policy.SEED_BIT
    if not receivers:
        return None
    # As in taking: not where there are racks.
    alike = like(core.book.down_bands, receivers, node.up) if node.rack is None else receivers
    found = _to_any(core, node, alike) if alike else None
    if found is None and alike != receivers:
        return _to_any(core, node, receivers)
    return found


def _to_any(core: Core, node: Node, receivers: int) -> Choice | None:
    if len(node.members) == 1:
        for only in node.members.values():
            return _from_member(core, only, receivers)
    useful = [(member, member.have & member.swarm.open_pieces) for member in node.members.values()]
    for _, member in policy.rarest_swarms(useful):
        found = _from_member(core, member, receivers)
        if found is not None:
            return found
    return None


def _for_seed(core: Core, seed: Node, seed_free: bool) -> Choice | None:
    receivers = core.book.free_down & ~policy.SEED_BIT
    if not receivers:
        return None
    # Swarms as they were opened; first copies of all before further copies of any.
    for swarm in core.swarms.values():
        wanting = swarm.wanting & receivers
        # Thousands of swarms may be open, of which hardly any has something for anybody: the cheap questions first.
        fresh = policy.fresh_pieces(swarm) & swarm.open_pieces if wanting and not swarm.inline else 0
        waiting = policy.seed_receivers(core, wanting) if fresh else 0
        # Nearly always the first will do; those that wait may lack others only.
        for piece in indices(fresh if waiting else 0):
            candidates = _able(core, swarm, seed, piece, swarm.lacking[piece] & waiting)
            if candidates:
                member = _first_receiver(core, swarm, candidates)
                return member, policy.in_order(member, fresh & member.need), seed
    if not seed_free or policy.seed_is_early(core):
        return None
    for swarm in core.swarms.values():
        if not swarm.inline:
            found = _from_member(core, swarm.seed, receivers)
            if found is not None:
                return found
    return None


def _first_receiver(core: Core, swarm: Swarm, candidates: int) -> Member:
    """Who gets a first copy: one that gets nothing now takes it at the full rate, another may share its link."""
    idle = candidates & core.book.idle_down
    if not idle or not policy.seed_is_early(core):
        return _fastest(core, swarm, idle or candidates)
    # It will wait for most of a transfer: of equally fast ones the one that can best afford it.
    few = policy.at_most(idle, _CROWD)
    rows = list(indices(idle)) if few else [policy.any_bit(idle, core.rng) for _ in range(_CROWD)]
    best = swarm.at_row[rows[0]]
    for row in rows[1:]:
        other = swarm.at_row[row]
        if _alike(core, best.node.up, other.node.up):
            better = other.have.bit_count() > best.have.bit_count()
        else:
            better = other.node.up.speed() > best.node.up.speed()
        if better:
            best = other
    return best


def _from_member(core: Core, member: Member, receivers: int) -> Choice | None:
    swarm, source = member.swarm, member.node
    if source.quarantined:
        return None
    # Before the masks of nodes, which are longer.
    useful = member.have & swarm.open_pieces
    if swarm.awaited:
        useful &= ~swarm.awaited
    if source.bit & core.book.sunk:
        useful &= policy.hardly_elsewhere(core, swarm)
    receivers = receivers & swarm.wanting if useful else 0
    if not receivers:
        return None
    if policy.at_most(receivers, policy.FEW_NODES):
        return _from_member_each(core, member, useful, receivers)
    return _from_member_tries(core, member, useful, receivers)


def _from_member_tries(core: Core, member: Member, useful: int, receivers: int) -> Choice | None:
    """Try some pieces, rarest first, and then each receiver."""
    swarm, source = member.swarm, member.node
    tries = policy.TRIES
    rng, lacking, covered = core.rng, swarm.lacking, swarm.covered
    unbound = _unbound(core, swarm, source)
    avoided = core.book.avoided & source.bit
    levels, occupied = swarm.rarity.levels, swarm.rarity.occupied
    while occupied:
        lowest_level = occupied & -occupied
        left = levels[lowest_level.bit_length() - 1] & useful
        while left:
            piece = policy.any_bit(left, rng) if left & (left - 1) else left.bit_length() - 1
            candidates = lacking[piece] & receivers
            # As _able does; this loop is as hot as that of _matched.
            if candidates and covered[piece]:
                candidates &= ~covered[piece] | unbound
            if candidates and avoided:
                candidates = _willing(core, source, candidates)
            if candidates:
                return _neediest(core, swarm, source, candidates), piece, source
            tries -= 1
            if not tries:
                return _from_member_each(core, member, useful, receivers)
            left ^= 1 << piece
        occupied ^= lowest_level
    # Every piece has been tried.
    return None


def _from_member_each(core: Core, member: Member, useful: int, receivers: int) -> Choice | None:
    """Try every receiver; among the first few that take anything, the one with the rarest piece."""
    swarm, source = member.swarm, member.node
    if receivers.bit_count() > useful.bit_count():
        return _from_member_pieces(core, member, useful, receivers)
    best: Choice | None = None
    best_copies = 0
    found = 0
    for row in indices(receivers):
        other = swarm.at_row[row]
        need = other.need & useful
        if not need or other.node.avoid & source.bit:
            continue
        if other.node.rack != source.rack:
            need &= ~policy.covered_pieces(core, swarm, other.node)
        if not need:
            continue
        piece = policy.any_bit(swarm.rarity.rarest(need), core.rng)
        copies = swarm.rarity.counts[piece]
        if best is None or copies < best_copies:
            best, best_copies = (other, piece, source), copies
        found += 1
        if found == policy.FEW_NODES:
            break
    return best


def _from_member_pieces(core: Core, member: Member, useful: int, receivers: int) -> Choice | None:
    """Try every piece, rarest first."""
    swarm, source = member.swarm, member.node
    for level in swarm.rarity.rarest_first(useful):
        for piece in indices(level):
            candidates = swarm.lacking[piece] & receivers
            if candidates:
                candidates = _able(core, swarm, source, piece, candidates)
                if candidates:
                    return _neediest(core, swarm, source, candidates), piece, source
    return None


def _able(core: Core, swarm: Swarm, source: Node, piece: int, receivers: int) -> int:
    """Those of the receivers that may take this piece from this source."""
    covered = swarm.covered[piece]
    if covered:
        receivers &= ~covered | _unbound(core, swarm, source)
    # Few avoid anybody: look at the ones that will be chosen from, not at all.
    return receivers if not core.book.avoided & source.bit else _willing(core, source, receivers)


def _unbound(core: Core, swarm: Swarm, source: Node) -> int:
    """Nodes that may take from this source what their racks have: those of its own rack, and those that roam."""
    near = swarm.rack_nodes[source.rack] if source.rack is not None else 0
    return near | core.book.roaming


def _willing(core: Core, source: Node, receivers: int) -> int:
    for row in indices(receivers):
        if core.book.at(row).avoid & source.bit:
            receivers ^= 1 << row
    return receivers


def _fastest(core: Core, swarm: Swarm, receivers: int) -> Member:
    """A first copy goes to a fast uplink, which passes it on soonest: the best of a few at random.

    While the origin still sends, it sets the pace, and of equally fast ones who got fewest is next: so the work of
    passing on is shared.
    """
    best = swarm.at_row[policy.any_bit(receivers, core.rng)]
    for _ in range(_SAMPLE - 1):
        other = swarm.at_row[policy.any_bit(receivers, core.rng)]
        if swarm.fetching and _alike(core, best.node.up, other.node.up):
            better = other.first_copies < best.first_copies
        else:
            better = other.node.up.speed() > best.node.up.speed()
        if better:
            best = other
    return best


def _alike(core: Core, one: Link, other: Link) -> bool:
    slower, faster = sorted((one.speed(), other.speed()))
    return not slower or faster <= core.settings.alike_factor * slower


def _neediest(core: Core, swarm: Swarm, source: Node, receivers: int) -> Member:
    """Of the near receivers, the one that needs longest for what it lacks."""
    for place in source.places:
        near = receivers & core.book.places[place]
        if near:
            receivers = near
            break
    if policy.is_one(receivers):
        return swarm.at_row[receivers.bit_length() - 1]
    best = swarm.at_row[policy.any_bit(receivers, core.rng)]
    # Few end their transfers just now; of a crowd, some at random.
    few = policy.at_most(receivers, _CROWD)
    rows = indices(receivers) if few else (policy.any_bit(receivers, core.rng) for _ in range(_SAMPLE - 1))
    for row in rows:
        other = swarm.at_row[row]
        if _needier(core, other, best):
            best = other
    return best


def _needier(core: Core, one: Member, other: Member) -> bool:
    """By the time that what they lack takes at their own rates; where those are alike by what they lack alone.

    Rates are learned: one believed to be faster than all others would be last in every choice.
    """
    lacks_one = one.swarm.count - one.have.bit_count()
    lacks_other = other.swarm.count - other.have.bit_count()
    if _alike(core, one.node.down, other.node.down):
        return lacks_one > lacks_other
    return lacks_one / one.node.down.speed() > lacks_other / other.node.down.speed()
