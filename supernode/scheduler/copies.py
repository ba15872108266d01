"""Which piece is where: the only place that changes the masks of a swarm and its members. It decides nothing.

Piece states per member, exactly one at a time: MISSING -> LEASED -> HELD, back to MISSING by failure, expiry or
eviction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler.contract import SEED
from supernode.scheduler.records import Member

if TYPE_CHECKING:
    from supernode.scheduler.records import Node, Swarm


def join(swarm: Swarm, node: Node) -> Member:
    """Enter a node as a member that holds and wants nothing."""
    member = Member(swarm, node)
    swarm.members[node.peer] = member
    swarm.at_row[node.row] = member
    node.members[swarm.number] = member
    rack = node.rack
    if rack is not None:
        swarm.rack_nodes[rack] = swarm.rack_nodes.get(rack, 0) | node.bit
        for piece in indices(swarm.of_rack(rack)):
            swarm.in_rack[piece] |= node.bit
    return member


def leave(member: Member) -> None:
    """Forget a member without leases."""
    assert not member.leased
    swarm, node = member.swarm, member.node
    drop(member, member.have)
    want(member, wanted=False)
    ask(member, 0, ranges=False)
    refresh_need(member)
    if node.rack is not None:
        swarm.rack_nodes[node.rack] ^= node.bit
        for piece in range(swarm.count):
            swarm.in_rack[piece] &= ~node.bit
    swarm.given_up &= ~node.bit
    del swarm.members[node.peer]
    del swarm.at_row[node.row]
    del node.members[swarm.number]


def add(member: Member, pieces: int) -> None:
    """MISSING -> HELD for every piece of the mask that is not held yet. None may be leased."""
    fresh = pieces & ~member.have
    assert not fresh & member.leased
    member.have |= fresh
    if fresh and not member.node.quarantined:
        _offer(member.swarm, member.node, fresh)
    refresh_need(member)


def drop(member: Member, pieces: int) -> None:
    """HELD -> MISSING."""
    gone = pieces & member.have
    member.have ^= gone
    if gone and not member.node.quarantined:
        _withdraw_offer(member.swarm, member.node, gone, member.have)
    refresh_need(member)


def ignore(member: Member) -> None:
    """The node has just been quarantined: what it holds and is sent counts as a copy no more."""
    _withdraw_offer(member.swarm, member.node, member.have, 0)
    for piece in indices(member.leased):
        member.swarm.rarity.remove(piece)


def heed(member: Member) -> None:
    """The node's quarantine has just ended: inverse of ignore()."""
    if member.have:
        _offer(member.swarm, member.node, member.have)
    for piece in indices(member.leased):
        member.swarm.rarity.add(piece)


def lease_out(member: Member, piece: int) -> None:
    """MISSING -> LEASED."""
    swarm = member.swarm
    bit = 1 << piece
    assert member.need & bit
    member.leased |= bit
    member.need ^= bit
    left = swarm.lacking[piece] = swarm.lacking[piece] ^ member.node.bit
    if not left:
        swarm.needed_by_any ^= bit
    if not member.need:
        swarm.wanting ^= member.node.bit
        del member.node.wanting[swarm.number]
    if member.node.peer != SEED:
        swarm.leased_to_peers += 1
        if not member.node.quarantined:
            swarm.rarity.add(piece)


def lease_back(member: Member, piece: int) -> None:
    """LEASED -> MISSING."""
    swarm = member.swarm
    member.leased ^= 1 << piece
    if member.node.peer != SEED:
        swarm.leased_to_peers -= 1
        if not member.node.quarantined:
            swarm.rarity.remove(piece)
    refresh_need(member)


def lease_done(member: Member, piece: int) -> None:
    """LEASED -> HELD: the count of copies stays."""
    swarm, node = member.swarm, member.node
    bit = 1 << piece
    member.leased ^= bit
    member.have |= bit
    if node.peer != SEED:
        swarm.leased_to_peers -= 1
        swarm.first_copy_pending &= ~bit
    if not node.quarantined:
        swarm.holders[piece] |= node.bit
        swarm.held_by_any |= bit
        if member.have == bit:
            swarm.holding |= node.bit
        if node.rack is not None and not swarm.rack_have.get(node.rack, 0) & bit:
            _add_to_rack(swarm, node.rack, bit)


def refresh_need(member: Member) -> None:
    """Derive `need` anew from the rest."""
    swarm, node = member.swarm, member.node
    need = 0
    if member.wanted:
        need = wants(member) & ~(member.have | member.leased)
        if node.peer == SEED:
            need &= ~(swarm.fetching | swarm.evicted_by_seed | swarm.unvouched)
    changed = member.need ^ need
    if not changed:
        return
    member.need = need
    lacking, node_bit = swarm.lacking, node.bit
    while changed:
        bit = changed & -changed
        piece = bit.bit_length() - 1
        left = lacking[piece] = lacking[piece] ^ node_bit
        if left:
            swarm.needed_by_any |= bit
        else:
            swarm.needed_by_any &= ~bit
        changed ^= bit
    if need:
        if not swarm.wanting & node_bit:
            swarm.wanting |= node_bit
            node.wanting[swarm.number] = member
    elif swarm.wanting & node_bit:
        swarm.wanting ^= node_bit
        del node.wanting[swarm.number]


def wants(member: Member) -> int:
    """The pieces that it wants, held ones among them. All of a blob of one piece, whatever is read of it."""
    return member.asked if member.ranges and member.swarm.count > 1 else member.swarm.full


def want(member: Member, *, wanted: bool, background: bool = False) -> None:
    """It wants the rest, or not; in the background: for no client. Its need is yet to be derived."""
    member.wanted, member.background = wanted, background
    swarm, bit = member.swarm, member.node.bit
    swarm.pulling = swarm.pulling | bit if wanted and not background else swarm.pulling & ~bit


def ask(member: Member, pieces: int, *, ranges: bool) -> None:
    """It asks for these pieces by ranges, and with `ranges` for no others."""
    swarm = member.swarm
    if (member.asked, member.ranges) == (pieces, ranges):
        return
    member.asked, member.ranges = pieces, ranges
    swarm.asked = 0
    for other in swarm.members.values():
        if other.node.peer != SEED:
            swarm.asked |= other.asked
    refresh_need(member)


def _offer(swarm: Swarm, node: Node, pieces: int) -> None:
    counted = node.peer != SEED
    for piece in indices(pieces):
        swarm.holders[piece] |= node.bit
        if counted:
            swarm.rarity.add(piece)
    if counted:
        swarm.first_copy_pending &= ~pieces
    swarm.held_by_any |= pieces
    swarm.holding |= node.bit
    if node.rack is not None:
        _add_to_rack(swarm, node.rack, pieces)


def _withdraw_offer(swarm: Swarm, node: Node, pieces: int, left: int) -> None:
    counted = node.peer != SEED
    for piece in indices(pieces):
        swarm.holders[piece] &= ~node.bit
        if not swarm.holders[piece]:
            swarm.held_by_any &= ~(1 << piece)
        if counted:
            swarm.rarity.remove(piece)
    if not left:
        swarm.holding &= ~node.bit
    if node.rack is not None:
        _remove_from_rack(swarm, node.rack, pieces)


# --- racks -------------------------------------------------------------------------------------------------------


def reserve_for_rack(swarm: Swarm, rack: str, piece: int) -> None:
    """The first copy of the piece is on its way into the rack: its other nodes wait for that one."""
    swarm.rack_inbound[rack] = swarm.rack_inbound.get(rack, 0) | 1 << piece
    swarm.in_rack[piece] |= swarm.rack_nodes[rack]


def end_rack_reservation(swarm: Swarm, rack: str, piece: int) -> None:
    """That copy has come, or will not."""
    swarm.rack_inbound[rack] ^= 1 << piece
    if not swarm.rack_have.get(rack, 0) >> piece & 1:
        swarm.in_rack[piece] &= ~swarm.rack_nodes[rack]


def _add_to_rack(swarm: Swarm, rack: str, pieces: int) -> None:
    """Some node of the rack has these pieces now."""
    swarm.rack_have[rack] = swarm.rack_have.get(rack, 0) | pieces
    for piece in indices(pieces):
        swarm.in_rack[piece] |= swarm.rack_nodes[rack]


def _remove_from_rack(swarm: Swarm, rack: str, pieces: int) -> None:
    """A node of the rack has these pieces no longer; others may."""
    gone = pieces
    nodes = swarm.rack_nodes[rack]
    for piece in indices(pieces):
        if swarm.holders[piece] & nodes:
            gone ^= 1 << piece
    swarm.rack_have[rack] = swarm.rack_have.get(rack, 0) & ~gone
    for piece in indices(gone & ~swarm.rack_inbound.get(rack, 0)):
        swarm.in_rack[piece] &= ~nodes
