"""The scheduling rules, each a small function, and here what both halves of them share: which lease to grant to a free
receiver (taking) or from a free source (giving). Reads state, changes none but rotation; the order of every choice
comes from masks, insertion order and the machine's own random, never from a set.

1 just in time: link.Link.room, running._openings decide who counts as free. 2 level by level, 5 nearest
first and 9 slow ones last: taking.choose_source. 3 first copies first: fresh_pieces, Swarm.awaited,
matching.seed_is_free. 4 rarest first: taking._matched, giving._from_member_tries. 5 first copies to fast uplinks:
giving._fastest. 6 one inbound copy a rack: covered_pieces and giving._able. 7 readers early: taking._reader_next.
8 the end: taking.race_for_receiver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    import random

    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.swarm import Member, Swarm

SEED_BIT: Final = 1
# Up to this many nodes on the other side, trying each is cheaper than going through pieces.
FEW_NODES: Final = 4
# Pieces tried, rarest first, before every node is tried in turn.
TRIES: Final = 12
# Any look at the whole of a mask longer than this is as dear as a copy of it; mostly one of its ends tells, of which so
# many bits are looked at.
_LONG_BITS: Final = 768
_NEAR_BITS: Final = 60
_NEAR: Final = (1 << _NEAR_BITS) - 1


# A lease to grant: to whom, which piece, from whom.
Choice: TypeAlias = "tuple[Member, int, Node]"


def any_bit(mask: int, rng: random.Random) -> int:
    """Index of some set bit of a non-zero mask: the next one at or above a random place."""
    if is_one(mask):
        return mask.bit_length() - 1
    length = mask.bit_length()
    shift = int(rng.random() * length)
    above = mask >> shift
    if length > _LONG_BITS:
        # Mostly the next bit is near.
        above = above & _NEAR or above
    return shift + (above & -above).bit_length() - 1


def is_one(mask: int) -> bool:
    """Whether a single bit of a non-zero mask is set."""
    length = mask.bit_length()
    if length > _LONG_BITS:
        top = mask >> (length - _NEAR_BITS)
        if top & (top - 1):
            return False
    return not mask & (mask - 1)


def at_most(mask: int, count: int) -> bool:
    """Whether so many bits or fewer are set."""
    length = mask.bit_length()
    if length > _LONG_BITS and (mask >> (length - _LONG_BITS)).bit_count() > count:
        return False
    return mask.bit_count() <= count


def lowest(mask: int) -> int:
    """Index of the lowest set bit of a non-zero mask."""
    return (mask & -mask).bit_length() - 1


def rarest_swarms(candidates: list[tuple[Member, int]]) -> list[tuple[int, Member]]:
    """Numbers and members, those first of whose pieces (the mask) some has the fewest copies."""
    ranked = [
        (member.swarm.rarity.least(pieces), member)
        for member, pieces in candidates
        if pieces & member.swarm.held_by_any
    ]
    ranked.sort(key=lambda one: one[0])
    return [(member.swarm.number, member) for _, member in ranked]


def hardly_elsewhere(core: Core, swarm: Swarm) -> int:
    """Pieces with no more copies than there are slow and faulty nodes: all of them may be there."""
    return swarm.rarity.up_to((swarm.holding & core.book.sunk).bit_count())


def in_order(member: Member, pieces: int) -> int:
    """The lowest piece, from the reader's position on if a client reads: at equal rarity, readers decide."""
    if member.reader is not None:
        ahead = pieces >> member.reader
        if ahead:
            return member.reader + lowest(ahead)
    return lowest(pieces)


def fresh_pieces(swarm: Swarm) -> int:
    """Pieces that the seed has and nobody else holds or is being sent."""
    return swarm.rarity.levels[0] & swarm.members[SEED].have


def seed_receivers(core: Core, waiting: int) -> int:
    """Of nodes with download room those that the seed may promise a first copy now; the seed has room, too.

    Behind one that has not begun one more, should the request for that be lost, while there are nodes to spare: some
    get nothing, but not so many as where a swarm begins, when others are about to serve them.
    """
    up = core.book.at(0).up
    if up.room_now() or up.open_ends[0].started_at is not None:
        return waiting
    idle = waiting & core.book.idle_down
    settings, spare = core.settings, idle.bit_count()
    return idle if settings.seed_spare_nodes <= spare <= settings.seed_spare_part * len(core.book.nodes) else 0


def seed_is_early(core: Core) -> bool:
    """Whether the seed, which has room, has it for first copies alone: what it sends now will not end shortly."""
    up = core.book.at(0).up
    return not up.room_now() and not up.open_ends[0].ending_down


def covered_pieces(core: Core, swarm: Swarm, node: Node) -> int:
    """Pieces that the node's rack has, or that are on their way into it: they come from there and nowhere else.

    A node that its rack let wait for long takes them from anywhere.
    """
    if node.rack is None or core.book.roaming & node.bit:
        return 0
    return swarm.covered_in(node.rack)
