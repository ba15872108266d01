"""Rule 4, rarest first: the one place that chooses pieces and partners, from the receiver's and from the source's side.

Pieces in order of their copies held and in flight, ties at random; partners with links about as fast first (rule 5),
near rather than far, idle rather than busy (rule 2). Changes nothing but the rotation of a node's swarms. The order of
every choice comes from masks, insertion order and the machine's own random, never from a set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler.masks import any_bit, at_most, is_one
from supernode.scheduler.records import SEED_BIT
from supernode.scheduler.rules import preheats, rack_copies, readers
from supernode.scheduler.settings import CROWD, FEW_NODES, SAMPLE, TRIES

if TYPE_CHECKING:
    from supernode.scheduler.records import Choice, Direction, Link, Member, Node, Swarm
    from supernode.scheduler.state import State

# --- what a receiver takes -----------------------------------------------------------------------------------------


def for_receiver(state: State, node: Node, sources: int) -> Choice | None:
    """The best lease for a node with download room, from nodes with upload room."""
    wanting = preheats.wanting(state, node) if state.preheats else list(node.wanting.values())
    for some in _alike_first(sources, state.up, node.down):
        for member in _rarest_swarms([(member, member.need) for member in wanting]):
            allowed = preheats.partners(state, member.swarm, some) if state.preheats else some
            found = _for_member(state, member, allowed)
            if found is not None:
                # Where two are as rare, the next lease of this node goes to its next swarm.
                del node.wanting[member.swarm.number]
                node.wanting[member.swarm.number] = member
                return found
    return None


def _for_member(state: State, member: Member, sources: int) -> Choice | None:
    """The best lease of one swarm."""
    swarm = member.swarm
    need = member.need & swarm.held_by_any
    if swarm.first_copy_pending:
        need &= ~swarm.first_copy_pending
    sources = sources & swarm.holding if need else 0
    if not sources or (swarm.inline and sources & SEED_BIT):
        return None
    bound = rack_copies.bound_pieces(state, swarm, member.node)
    if not bound:
        return _from_sources(state, member, need, sources)
    # What the rack has or awaits comes from its own nodes alone.
    near = sources & swarm.rack_nodes.get(member.node.rack or "", 0)
    found = _from_sources(state, member, need, near, near=True) if near else None
    far = sources & ~near
    return _from_sources(state, member, need & ~bound, far) if found is None and far else found


def _from_sources(state: State, member: Member, need: int, sources: int, *, near: bool = False) -> Choice | None:
    """From a sound source, or from a slow or faulty one what hardly anybody else has, be it in the rack alone."""
    poor = sources & state.deprioritized
    if not poor:
        return _from_sound(state, member, need, sources)
    sound = sources ^ poor
    found = _from_sound(state, member, need, sound) if sound else None
    if found is None and near:
        # The rack's other nodes lack it, or have no room: those of other racks will not be asked for it.
        return _from_sound(state, member, need & rack_copies.bound_pieces(state, member.swarm, member.node), poor)
    return found or _from_sound(state, member, need & _scarce(state, member.swarm), poor)


def _from_sound(state: State, member: Member, need: int, sources: int) -> Choice | None:
    swarm = member.swarm
    if not need:
        return None
    piece = readers.next_piece(state.settings, member, need, sources)
    if piece is None:
        piece, holders = _search(state, swarm, need, swarm.holders, sources, None)
        if not holders:
            return None
    return member, piece, choose_source(state, member.node, swarm.holders[piece] & sources)


def choose_source(state: State, receiver: Node, holders: int) -> Node:
    """The nearest holder; sound rather than slow, a peer rather than the seed, idle rather than busy."""
    holders = _nearest(state, receiver, holders)
    if is_one(holders):
        return state.at(holders.bit_length() - 1)
    for preferred in (~state.deprioritized, ~SEED_BIT, state.up.idle):
        holders = holders & preferred or holders
    return state.at(any_bit(holders, state.rng))


# --- what a source sends -------------------------------------------------------------------------------------------


def from_source(state: State, node: Node, receivers: int) -> Choice | None:
    """The best lease from a peer with upload room, to nodes with download room."""
    for some in _alike_first(receivers, state.down, node.up):
        rarest = _rarest_swarms([(one, one.have & one.swarm.needed_by_any) for one in node.members.values()])
        for member in preheats.pulls_first(state, rarest) if state.preheats else rarest:
            found = _from_member(state, member, some)
            if found is not None:
                return found
    return None


def from_seed(state: State, receivers: int) -> Choice | None:
    """A further copy from the seed: swarms as they were opened."""
    for swarm in preheats.in_order(state):
        found = None if swarm.inline else _from_member(state, swarm.seed, receivers)
        if found is not None:
            return found
    return None


def _from_member(state: State, member: Member, receivers: int) -> Choice | None:
    """The best lease of one swarm."""
    swarm, source = member.swarm, member.node
    if source.quarantined:
        return None
    # Before the masks of nodes, which are longer.
    useful = member.have & swarm.needed_by_any
    if swarm.first_copy_pending:
        useful &= ~swarm.first_copy_pending
    if source.bit & state.deprioritized:
        useful &= _scarce(state, swarm)
    receivers = receivers & swarm.wanting if useful else 0
    if receivers and state.preheats:
        receivers = preheats.receivers(state, swarm, receivers) if preheats.partners(state, swarm, source.bit) else 0
    if not receivers:
        return None
    if useful & swarm.asked:
        # What is read by ranges comes before all else.
        found = _send(state, member, useful & swarm.asked, receivers)
        if found is not None:
            return found
    return _send(state, member, useful, receivers)


def _send(state: State, member: Member, useful: int, receivers: int) -> Choice | None:
    """One of the useful pieces to one of the receivers."""
    swarm, source = member.swarm, member.node
    if at_most(receivers, FEW_NODES):
        return _to_few(state, member, useful, receivers)
    piece, candidates = _search(state, swarm, useful, swarm.lacking, receivers, source)
    return (_neediest(state, swarm, source, candidates), piece, source) if candidates else None


def _to_few(state: State, member: Member, useful: int, receivers: int) -> Choice | None:
    """Of a few receivers the one with the rarest piece. By way of pieces, who lacks the most would mostly win."""
    swarm, source = member.swarm, member.node
    best: Choice | None = None
    best_copies = 0
    for row in indices(receivers):
        other = swarm.at_row[row]
        need = other.need & useful
        if other.node.blocked_sources & source.bit:
            continue
        if other.node.rack != source.rack:
            need &= ~rack_copies.bound_pieces(state, swarm, other.node)
        if not need:
            continue
        piece = any_bit(swarm.rarity.rarest(need), state.rng)
        copies = swarm.rarity.counts[piece]
        if best is None or copies < best_copies:
            best, best_copies = (other, piece, source), copies
    return best


def _neediest(state: State, swarm: Swarm, source: Node, receivers: int) -> Member:
    """Of the near receivers, the one that lacks the most."""
    receivers = _nearest(state, source, receivers)
    if is_one(receivers):
        return swarm.at_row[receivers.bit_length() - 1]
    best = swarm.at_row[any_bit(receivers, state.rng)]
    # Few end their transfers just now; of a crowd, some at random.
    few = at_most(receivers, CROWD)
    rows = indices(receivers) if few else (any_bit(receivers, state.rng) for _ in range(SAMPLE - 1))
    for row in rows:
        other = swarm.at_row[row]
        if other.have.bit_count() < best.have.bit_count():
            best = other
    return best


# --- what both sides ask -------------------------------------------------------------------------------------------


def _alike_first(nodes: int, of_nodes: Direction, link: Link) -> list[int]:
    """The nodes to look through for a transfer over this link: first those whose links of that direction are about as
    fast, then all.
    """
    if not nodes:
        return []
    # Where there are racks their trunks hold transfers up, and a rate is no link's own.
    near = of_nodes.alike(nodes, link) if link.node.rack is None else nodes
    return [near, nodes] if near not in (0, nodes) else [nodes]


def _rarest_swarms(candidates: list[tuple[Member, int]]) -> list[Member]:
    """Those first of whose pieces (the mask) some has the fewest copies."""
    if len(candidates) == 1:
        return [candidates[0][0]]
    ranked = [
        (member.swarm.rarity.least(pieces), member)
        for member, pieces in candidates
        if pieces & member.swarm.held_by_any
    ]
    ranked.sort(key=lambda one: one[0])
    return [member for _, member in ranked]


def _nearest(state: State, node: Node, others: int) -> int:
    """Those of the others in its rack; if there are none, in its zone; in its region; all."""
    for place in node.places:
        near = others & state.places[place]
        if near:
            return near
    return others


def _scarce(state: State, swarm: Swarm) -> int:
    """Pieces with no more copies than there are slow and faulty nodes: all of them may be there."""
    return swarm.rarity.up_to((swarm.holding & state.deprioritized).bit_count())


def _search(
    state: State, swarm: Swarm, pieces: int, nodes_of: list[int], nodes: int, source: Node | None
) -> tuple[int, int]:
    """The first of the pieces, rarest first, that any of the nodes is listed for, and those nodes; none (0) if there is
    no such piece. With a `source`, only nodes that may take it from there count.
    """
    if at_most(nodes, FEW_NODES):
        pieces &= _pieces_of(swarm, nodes, source)
    piece, found = _try(state, swarm, pieces, nodes_of, nodes, source, TRIES)
    if found or at_most(pieces, TRIES):
        return piece, found
    # Neither all nodes nor all pieces are gone through where there are many.
    if at_most(nodes, pieces.bit_count()):
        pieces &= _pieces_of(swarm, nodes, source)
    return _try(state, swarm, pieces, nodes_of, nodes, source, swarm.count)


def _pieces_of(swarm: Swarm, nodes: int, source: Node | None) -> int:
    """What any of the nodes holds; with a `source`, what any of them needs."""
    found = 0
    at_row = swarm.at_row
    while nodes:
        low = nodes & -nodes
        member = at_row[low.bit_length() - 1]
        found |= member.have if source is None else member.need
        nodes ^= low
    return found


def _try(
    state: State, swarm: Swarm, pieces: int, nodes_of: list[int], nodes: int, source: Node | None, tries: int
) -> tuple[int, int]:
    """So many of the pieces, rarest first and at random within a level."""
    rng = state.rng
    levels, occupied = swarm.rarity.levels, swarm.rarity.occupied
    while occupied:
        lowest_level = occupied & -occupied
        left = levels[lowest_level.bit_length() - 1] & pieces
        while left:
            # any_bit, without the call: this is the machine's innermost loop.
            length = left.bit_length()
            if left & (left - 1):
                shift = int(rng.random() * length)
                above = left >> shift
                piece = shift + (above & -above).bit_length() - 1
            else:
                piece = length - 1
            found = nodes_of[piece] & nodes
            if found and source is not None:
                found = rack_copies.may_take(state, swarm, source, piece, found)
            if found:
                return piece, found
            tries -= 1
            if not tries:
                return 0, 0
            left ^= 1 << piece
        occupied ^= lowest_level
    return 0, 0
