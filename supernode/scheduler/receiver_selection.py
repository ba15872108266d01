"""The half of the policy for a node with download room: which piece it gets next and from whom. See policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler import policy
from supernode.scheduler.contract import SEED
from supernode.scheduler.nodes import like

if TYPE_CHECKING:
    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.policy import Choice
    from supernode.scheduler.rarity import Rarity
    from supernode.scheduler.swarm import Member, Swarm


def for_receiver(core: Core, node: Node, seed_free: bool) -> Choice | None:
    """The best lease for a node with download room. `seed_free`: the seed may send further copies."""
    sources = _free_sources(core, node)
    if not sources:
        return None
    if sources & policy.SEED_BIT and node.peer != SEED:
        found = _first_copy(core, node)
        if found is not None:
            return found
        if not seed_free or policy.seed_is_early(core):
            sources ^= policy.SEED_BIT
    # Where there are racks their trunks hold transfers up, and a rate is no link's own.
    alike = like(core.book.up_bands, sources, node.down) if node.rack is None else sources
    found = _from_any(core, node, alike) if alike else None
    if found is None and alike != sources:
        return _from_any(core, node, sources)
    return found


def _from_any(core: Core, node: Node, sources: int) -> Choice | None:
    if len(node.wanting) == 1:
        for only in node.wanting.values():
            return _for_member(core, only, sources)
    for number, member in policy.rarest_swarms([(member, member.need) for member in node.wanting.values()]):
        found = _for_member(core, member, sources)
        if found is not None:
            # Where two are as rare, the next lease of this node goes to its next swarm.
            del node.wanting[number]
            node.wanting[number] = member
            return found
    return None


def _first_copy(core: Core, node: Node) -> Choice | None:
    """From the seed, which has room, what nobody else has; to whom it promises that early is for it to choose."""
    if policy.seed_is_early(core):
        return None
    for member in node.wanting.values():
        swarm = member.swarm
        fresh = policy.fresh_pieces(swarm) & member.need
        if not fresh or swarm.inline:
            continue
        if policy.seed_receivers(core, swarm.wanting & core.book.free_down) & node.bit:
            return member, policy.in_order(member, fresh), core.book.at(0)
    return None


def _free_sources(core: Core, node: Node) -> int:
    """Nodes with upload room that the node may fetch from."""
    sources = core.book.free_up
    if node.gives:
        sources ^= node.bit
    return sources & ~node.avoid if node.avoid else sources


def _for_member(core: Core, member: Member, sources: int) -> Choice | None:
    swarm = member.swarm
    need = member.need & swarm.held_by_any
    if swarm.awaited:
        need &= ~swarm.awaited
    sources = sources & swarm.holding if need else 0
    if not sources or (swarm.inline and sources & policy.SEED_BIT):
        return None
    return _from_near_and_far(core, member, need, sources)


def _from_near_and_far(core: Core, member: Member, need: int, sources: int) -> Choice | None:
    swarm = member.swarm
    covered = policy.covered_pieces(core, swarm, member.node)
    if not covered:
        return _from_sources(core, member, need, sources)
    # What the rack has or awaits comes from its own nodes alone.
    near = sources & swarm.rack_nodes.get(member.node.rack or "", 0)
    found = _from_sources(core, member, need, near, near=True) if near else None
    far = sources & ~near
    return _from_sources(core, member, need & ~covered, far) if found is None and far else found


def _from_sources(core: Core, member: Member, need: int, sources: int, *, near: bool = False) -> Choice | None:
    """From a sound source, or from a slow or faulty one what hardly anybody else has, be it in the rack alone."""
    sunk = sources & core.book.sunk
    if not sunk:
        return _from_alike(core, member, need, sources)
    sound = sources ^ sunk
    found = _from_alike(core, member, need, sound) if sound else None
    if found is None and near:
        # The rack's other nodes lack it, or have no room: those of other racks will not be asked for it.
        return _from_alike(core, member, need & policy.covered_pieces(core, member.swarm, member.node), sunk)
    return found or _from_alike(core, member, need & policy.hardly_elsewhere(core, member.swarm), sunk)


def _from_alike(core: Core, member: Member, need: int, sources: int) -> Choice | None:
    swarm = member.swarm
    if policy.at_most(sources, policy.FEW_NODES):
        need &= _union(swarm, sources)
    if not need:
        return None
    piece = _reader_next(core, member, need, sources)
    if piece is None:
        piece = _matched(core, swarm.rarity, need, swarm.holders, sources)
    if piece is None:
        if need.bit_count() <= policy.TRIES:
            # Every piece has been tried.
            return None
        held = _rarest_held(swarm, need, sources)
        if not held:
            return None
        piece = policy.any_bit(held, core.rng)
    holders = swarm.holders[piece] & sources
    return member, piece, choose_source(core, member.node, holders)


def _union(swarm: Swarm, sources: int) -> int:
    held = 0
    at_row = swarm.at_row
    while sources:
        low = sources & -sources
        held |= at_row[low.bit_length() - 1].have
        sources ^= low
    return held


def _rarest_held(swarm: Swarm, pieces: int, sources: int) -> int:
    """The rarest of the pieces that any of the sources has; as a mask, 0 if they have none.

    By way of the sources or of the pieces, whichever are fewer: neither is gone through at 10,000 nodes.
    """
    if policy.at_most(sources, pieces.bit_count()):
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
    tries = policy.TRIES
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
    if policy.is_one(holders):
        return book.at(holders.bit_length() - 1)
    for preferred in (~book.sunk, ~policy.SEED_BIT, book.idle_up):
        holders = holders & preferred or holders
    return book.at(policy.any_bit(holders, core.rng))


def race_for_receiver(core: Core, node: Node) -> Choice | None:
    """A second source for a piece in flight to a node that has nothing else to fetch, if the first is far from done."""
    typical = core.book.typical_flow
    sources = _free_sources(core, node)
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
