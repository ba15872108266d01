"""The scheduling rules, each a small function: given a free node, which lease to grant. Reads state, changes none but
rotation; the order of every choice comes from masks, insertion order and the machine's own random, never from a set.

1 just in time: peerbook.Link.room, Core._open_down and _open_up decide who counts as free. 2 level by level, 5 nearest
first and 9 slow ones last: choose_source. 3 first copies first: _fresh, Swarm.awaited, matching.seed_is_free. 4 rarest
first: _matched. 5 first copies to fast uplinks: _fastest. 6 one inbound copy a rack: _covered_pieces and _able. 7
readers early: _reader_next. 8 the end: race_for_receiver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from proto.pieces import indices
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    import random

    from supernode.scheduler.leases import Core
    from supernode.scheduler.peerbook import Link, Node
    from supernode.scheduler.rarity import Rarity
    from supernode.scheduler.swarm import Member, Swarm

SEED_BIT = 1
# Up to this many nodes on the other side, trying each is cheaper than going through pieces.
_FEW_NODES = 4
# Pieces tried, rarest first, before every node is tried in turn.
_TRIES = 12
# Receivers compared before one is taken: of a crowd of more than so many, some at random.
_SAMPLE = 3
_CROWD = 16


# A lease to grant: to whom, which piece, from whom.
Choice: TypeAlias = "tuple[Member, int, Node]"


def any_bit(mask: int, rng: random.Random) -> int:
    """Index of some set bit of a non-zero mask: the next one at or above a random place."""
    if not mask & (mask - 1):
        return mask.bit_length() - 1
    shift = int(rng.random() * mask.bit_length())
    above = mask >> shift
    return shift + (above & -above).bit_length() - 1


def lowest(mask: int) -> int:
    """Index of the lowest set bit of a non-zero mask."""
    return (mask & -mask).bit_length() - 1


# --- for a free receiver -------------------------------------------------------------------------------------


def for_receiver(core: Core, node: Node, seed_free: bool) -> Choice | None:
    """The best lease for a node with download room. `seed_free`: the seed may send further copies."""
    sources = core.book.free_up & ~(node.bit | node.avoid)
    if not sources:
        return None
    if sources & SEED_BIT and node.peer != SEED:
        for member in node.wanting.values():
            fresh = _fresh(member.swarm) & member.need
            if fresh and not member.swarm.inline:
                return member, _in_order(member, fresh), core.book.at(0)
        if not seed_free:
            sources ^= SEED_BIT
    if len(node.wanting) == 1:
        return _for_member(core, next(iter(node.wanting.values())), sources)
    for number, member in _rarest_swarms([(member, member.need) for member in node.wanting.values()]):
        found = _for_member(core, member, sources)
        if found is not None:
            # Where two are as rare, the next lease of this node goes to its next swarm.
            del node.wanting[number]
            node.wanting[number] = member
            return found
    return None


def _rarest_swarms(candidates: list[tuple[Member, int]]) -> list[tuple[int, Member]]:
    """Numbers and members, those first of whose pieces (the mask) some has the fewest copies."""
    ranked = [
        (member.swarm.rarity.least(pieces), member)
        for member, pieces in candidates
        if pieces & member.swarm.held_by_any
    ]
    ranked.sort(key=lambda one: one[0])
    return [(member.swarm.number, member) for _, member in ranked]


def _for_member(core: Core, member: Member, sources: int) -> Choice | None:
    swarm = member.swarm
    sources &= swarm.holding
    if not sources or (swarm.inline and sources & SEED_BIT):
        return None
    need = member.need & swarm.held_by_any & ~swarm.awaited
    covered = _covered_pieces(core, swarm, member.node)
    if not covered:
        return _from_sources(core, member, need, sources)
    # What the rack has or awaits comes from its own nodes alone.
    near = sources & swarm.rack_nodes.get(member.node.rack or "", 0)
    found = _from_sources(core, member, need, near) if near else None
    far = sources & ~near
    return _from_sources(core, member, need & ~covered, far) if found is None and far else found


def _from_sources(core: Core, member: Member, need: int, sources: int) -> Choice | None:
    """From a sound source, or from a slow or faulty one what hardly anybody else has."""
    sunk = sources & core.book.sunk
    if not sunk:
        return _from_alike(core, member, need, sources)
    sound = sources ^ sunk
    found = _from_alike(core, member, need, sound) if sound else None
    return found or _from_alike(core, member, need & _hardly_elsewhere(core, member.swarm), sunk)


def _hardly_elsewhere(core: Core, swarm: Swarm) -> int:
    """Pieces with no more copies than there are slow and faulty nodes: all of them may be there."""
    return swarm.rarity.up_to((swarm.holding & core.book.sunk).bit_count())


def _from_alike(core: Core, member: Member, need: int, sources: int) -> Choice | None:
    swarm = member.swarm
    if sources.bit_count() <= _FEW_NODES:
        need &= _union(swarm, sources)
    if not need:
        return None
    piece = _reader_next(core, member, need, sources)
    if piece is None:
        piece = _matched(core, swarm.rarity, need, swarm.holders, sources)
    if piece is None:
        if need.bit_count() <= _TRIES:
            # Every piece has been tried.
            return None
        held = _rarest_held(swarm, need, sources)
        if not held:
            return None
        piece = any_bit(held, core.rng)
    holders = swarm.holders[piece] & sources
    return member, piece, choose_source(core, member.node, holders)


def _union(swarm: Swarm, sources: int) -> int:
    held = 0
    for row in indices(sources):
        held |= swarm.at_row[row].have
    return held


def _rarest_held(swarm: Swarm, pieces: int, sources: int) -> int:
    """The rarest of the pieces that any of the sources has; as a mask, 0 if they have none.

    By way of the sources or of the pieces, whichever are fewer: neither is gone through at 10,000 nodes.
    """
    if sources.bit_count() <= pieces.bit_count():
        return swarm.rarity.rarest(pieces & _union(swarm, sources))
    holders = swarm.holders
    for level in swarm.rarity.rarest_first(pieces):
        held = 0
        for piece in indices(level):
            if holders[piece] & sources:
                held |= 1 << piece
        if held:
            return held
    return 0


def _matched(core: Core, rarity: Rarity, pieces: int, nodes_of: list[int], nodes: int) -> int | None:
    """The first piece, rarest first and at random within a level, that a node is listed for; None after some tries."""
    tries = _TRIES
    rng = core.rng
    levels, occupied = rarity.levels, rarity.occupied
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
            if nodes_of[piece] & nodes:
                return piece
            tries -= 1
            if not tries:
                return None
            left ^= 1 << piece
        occupied ^= lowest_level
    return None


def _in_order(member: Member, pieces: int) -> int:
    """The lowest piece, from the reader's position on if a client reads: at equal rarity, readers decide."""
    if member.reader is not None:
        ahead = pieces >> member.reader
        if ahead:
            return member.reader + lowest(ahead)
    return lowest(pieces)


def _reader_next(core: Core, member: Member, need: int, sources: int) -> int | None:
    """What the node's own client waits for next, when it is its turn."""
    if member.reader is None:
        return None
    settings = core.settings
    swarm = member.swarm
    if member.grants % settings.reader_grant_every and swarm.wanting != member.node.bit:
        return None
    window = need & ((1 << settings.reader_window_pieces) - 1) << member.reader
    for piece in indices(window):
        if swarm.holders[piece] & sources:
            return piece
    return None


def choose_source(core: Core, receiver: Node, holders: int) -> Node:
    """The nearest holder; sound rather than slow, a peer rather than the seed, idle rather than busy."""
    book = core.book
    for place in receiver.places:
        near = holders & book.places[place]
        if near:
            holders = near
            break
    for preferred in (~book.sunk, ~SEED_BIT, book.idle_up):
        holders = holders & preferred or holders
    return book.at(any_bit(holders, core.rng))


def race_for_receiver(core: Core, node: Node) -> Choice | None:
    """A second source for a piece in flight to a node that has nothing else to fetch, if the first is far from done."""
    typical = core.book.typical_flow
    sources = core.book.free_up & ~(node.bit | node.avoid)
    if typical is None or not sources:
        return None
    for lease in node.leases_in.values():
        member = lease.member
        swarm = member.swarm
        if lease.inline or lease.started_at is None or len(member.leases[lease.piece]) > 1:
            continue
        others = swarm.holders[lease.piece] & sources & ~lease.source.bit
        if not others:
            continue
        typical_s = swarm.layout.length(lease.piece) / typical
        left_s = lease.started_at + (lease.duration_s or 0.0) - core.now
        # Of an overdue transfer nobody knows what is left.
        late = lease.overdue and -left_s >= typical_s
        if late or left_s >= core.settings.race_after_piece_times * typical_s:
            return member, lease.piece, choose_source(core, node, others)
    return None


# --- for a free source ---------------------------------------------------------------------------------------


def for_source(core: Core, node: Node, seed_free: bool) -> Choice | None:
    """The best lease from a node with upload room."""
    if node.peer == SEED:
        return _for_seed(core, node, seed_free)
    receivers = core.book.free_down & ~(node.bit | SEED_BIT)
    if not receivers:
        return None
    if len(node.members) == 1:
        return _from_member(core, next(iter(node.members.values())), receivers)
    useful = [(member, member.have & member.swarm.open_pieces) for member in node.members.values()]
    for _, member in _rarest_swarms(useful):
        found = _from_member(core, member, receivers)
        if found is not None:
            return found
    return None


def _for_seed(core: Core, seed: Node, seed_free: bool) -> Choice | None:
    receivers = core.book.free_down & ~SEED_BIT
    if not receivers:
        return None
    # Swarms as they were opened; first copies of all before further copies of any.
    for swarm in core.swarms.values():
        waiting = swarm.wanting & receivers
        fresh = _fresh(swarm) & swarm.open_pieces
        if not waiting or not fresh or swarm.inline:
            continue
        # Nearly always the first will do; those that wait may lack others only.
        for piece in indices(fresh):
            candidates = _able(core, swarm, seed, piece, swarm.lacking[piece] & waiting)
            if candidates:
                member = _fastest(core, swarm, candidates)
                return member, _in_order(member, fresh & member.need), seed
    if not seed_free:
        return None
    for swarm in core.swarms.values():
        if not swarm.inline:
            found = _from_member(core, swarm.seed, receivers)
            if found is not None:
                return found
    return None


def _fresh(swarm: Swarm) -> int:
    """Pieces that the seed has and nobody else holds or is being sent."""
    return swarm.rarity.levels[0] & swarm.members[SEED].have


def _from_member(core: Core, member: Member, receivers: int) -> Choice | None:
    swarm, source = member.swarm, member.node
    receivers &= swarm.wanting
    if not receivers or source.quarantined:
        return None
    useful = member.have & swarm.open_pieces & ~swarm.awaited
    if source.bit & core.book.sunk:
        useful &= _hardly_elsewhere(core, swarm)
    if not useful:
        return None
    if receivers.bit_count() <= _FEW_NODES:
        return _from_member_each(core, member, useful, receivers)
    return _from_member_tries(core, member, useful, receivers)


def _from_member_tries(core: Core, member: Member, useful: int, receivers: int) -> Choice | None:
    """Try some pieces, rarest first, and then each receiver."""
    swarm, source = member.swarm, member.node
    tries = _TRIES
    rng, lacking, covered = core.rng, swarm.lacking, swarm.covered
    unbound = _unbound(core, swarm, source)
    avoided = core.book.avoided & source.bit
    for level in swarm.rarity.rarest_first(useful):
        left = level
        while left:
            piece = any_bit(left, rng) if left & (left - 1) else left.bit_length() - 1
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
            need &= ~_covered_pieces(core, swarm, other.node)
        if not need:
            continue
        piece = any_bit(swarm.rarity.rarest(need), core.rng)
        copies = swarm.rarity.counts[piece]
        if best is None or copies < best_copies:
            best, best_copies = (other, piece, source), copies
        found += 1
        if found == _FEW_NODES:
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


def _covered_pieces(core: Core, swarm: Swarm, node: Node) -> int:
    """Pieces that the node's rack has, or that are on their way into it: they come from there and nowhere else.

    A node that its rack let wait for long takes them from anywhere.
    """
    if node.rack is None or core.book.roaming & node.bit:
        return 0
    return swarm.covered_in(node.rack)


def _fastest(core: Core, swarm: Swarm, receivers: int) -> Member:
    """A first copy goes to a fast uplink, which passes it on soonest: the best of a few at random.

    While the origin still sends, it sets the pace, and of equally fast ones who got fewest is next: so the work of
    passing on is shared.
    """
    best = swarm.at_row[any_bit(receivers, core.rng)]
    for _ in range(_SAMPLE - 1):
        other = swarm.at_row[any_bit(receivers, core.rng)]
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
    """Of the near receivers, the one with most missing over its own rate."""
    for place in source.places:
        near = receivers & core.book.places[place]
        if near:
            receivers = near
            break
    best = swarm.at_row[any_bit(receivers, core.rng)]
    most = _time_left(best)
    # Few end their transfers just now; of a crowd, some at random.
    few = receivers.bit_count() <= _CROWD
    rows = indices(receivers) if few else (any_bit(receivers, core.rng) for _ in range(_SAMPLE - 1))
    for row in rows:
        other = swarm.at_row[row]
        left = _time_left(other)
        if left > most:
            best, most = other, left
    return best


def _time_left(member: Member) -> float:
    rate = member.node.down.speed()
    return (member.swarm.count - member.have.bit_count()) / (rate or 1.0)
