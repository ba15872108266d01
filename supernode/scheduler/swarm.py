"""One swarm: who holds, wants and is being sent which piece, as masks both ways (pieces of a node, nodes of a piece).

Piece states per member, exactly one at a time: MISSING -> LEASED -> HELD, back to MISSING by failure, expiry or
eviction. `have` and `leased` never overlap; MISSING is the rest. Only this file
changes these masks; it decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import PieceLayout, indices
from supernode.scheduler.contract import SEED
from supernode.scheduler.rarity import Rarity

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease
    from supernode.scheduler.nodes import Node


class Member:
    """One node's part in one swarm."""

    __slots__ = ("first_copies", "grants", "have", "leased", "leases", "need", "node", "reader", "swarm", "wanted")

    def __init__(self, swarm: Swarm, node: Node) -> None:
        self.swarm = swarm
        self.node = node
        self.have = 0
        self.leased = 0
        # What may still be leased to it: MISSING, if it wants the blob.
        self.need = 0
        self.wanted = False
        # Piece to its leases: one, or two while two sources race.
        self.leases: dict[int, list[Lease]] = {}
        self.reader: int | None = None
        self.grants = 0
        # Pieces that the seed sent it before anybody else.
        self.first_copies = 0


class Swarm:
    """All that goes on for one blob."""

    __slots__ = (
        "_last_bytes",
        "_piece_bytes",
        "at_row",
        "awaited",
        "count",
        "covered",
        "evicted_by_seed",
        "fetching",
        "full",
        "held_by_any",
        "holders",
        "holding",
        "inbound_of_rack",
        "inline",
        "lacking",
        "layout",
        "leased_to_peers",
        "members",
        "number",
        "open_pieces",
        "rack_have",
        "rack_nodes",
        "rarity",
        "wanting",
    )

    def __init__(self, number: int, layout: PieceLayout, inline: bool) -> None:
        self.number = number
        self.layout = layout
        self.inline = inline
        self.full = layout.full_mask
        self.count = count = layout.count
        self._piece_bytes = layout.piece_size_bytes
        self._last_bytes = layout.length(count - 1)
        # By peer, and the same by the row of its node.
        self.members: dict[int, Member] = {}
        self.at_row: dict[int, Member] = {}
        # Piece to nodes it can be had from (quarantined ones excluded), and to nodes whose `need` has it.
        self.holders = [0] * count
        self.lacking = [0] * count
        self.held_by_any = 0
        self.open_pieces = 0
        # Pieces LEASED to members other than the seed, over all of them.
        self.leased_to_peers = 0
        # Pieces that no peer holds and whose first copy will soon be at one: the seed sends no further copy of them.
        self.awaited = 0
        # Nodes that anything can be had from, and that need anything.
        self.holding = 0
        self.wanting = 0
        self.rarity = Rarity(count)
        # Pieces asked of the origin and not here yet.
        self.fetching = 0
        self.evicted_by_seed = 0
        # Rack to its members, to pieces that some of them hold, and to pieces on their way into it as its first copy;
        # piece to the nodes of racks that hold it or are being sent it: they take it from nowhere else.
        self.rack_nodes: dict[str, int] = {}
        self.rack_have: dict[str, int] = {}
        self.inbound_of_rack: dict[str, int] = {}
        self.covered = [0] * count

    def length(self, piece: int) -> int:
        """Bytes in the piece."""
        return self._piece_bytes if piece < self.count - 1 else self._last_bytes

    @property
    def seed(self) -> Member:
        """The supernode's own membership."""
        return self.members[SEED]

    def join(self, node: Node) -> Member:
        """Enter a node as a member that holds and wants nothing."""
        member = Member(self, node)
        self.members[node.peer] = member
        self.at_row[node.row] = member
        node.members[self.number] = member
        rack = node.rack
        if rack is not None:
            self.rack_nodes[rack] = self.rack_nodes.get(rack, 0) | node.bit
            for piece in indices(self.rack_have.get(rack, 0) | self.inbound_of_rack.get(rack, 0)):
                self.covered[piece] |= node.bit
        return member

    def leave(self, member: Member) -> None:
        """Forget a member without leases."""
        assert not member.leased
        self.drop_copies(member, member.have)
        member.wanted = False
        self.refresh_need(member)
        if member.node.rack is not None:
            self.rack_nodes[member.node.rack] ^= member.node.bit
            for piece in range(self.count):
                self.covered[piece] &= ~member.node.bit
        del self.members[member.node.peer]
        del self.at_row[member.node.row]
        del member.node.members[self.number]

    def add_copies(self, member: Member, pieces: int) -> None:
        """MISSING -> HELD for every piece of the mask that is not held yet. None may be leased."""
        fresh = pieces & ~member.have
        assert not fresh & member.leased
        member.have |= fresh
        if fresh and not member.node.quarantined:
            self._offer(member.node, fresh)
        self.refresh_need(member)

    def drop_copies(self, member: Member, pieces: int) -> None:
        """HELD -> MISSING."""
        gone = pieces & member.have
        member.have ^= gone
        if gone and not member.node.quarantined:
            self._withdraw_offer(member.node, gone, member.have)
        self.refresh_need(member)

    def ignore_node(self, member: Member) -> None:
        """The node has just been quarantined: what it holds and is sent counts as a copy no more."""
        self._withdraw_offer(member.node, member.have, 0)
        for piece in indices(member.leased):
            self.rarity.remove(piece)

    def lease_out(self, member: Member, piece: int) -> None:
        """MISSING -> LEASED."""
        bit = 1 << piece
        assert member.need & bit
        member.leased |= bit
        member.need ^= bit
        left = self.lacking[piece] = self.lacking[piece] ^ member.node.bit
        if not left:
            self.open_pieces ^= bit
        if not member.need:
            self.wanting ^= member.node.bit
            del member.node.wanting[self.number]
        if member.node.peer != SEED:
            self.leased_to_peers += 1
            if not member.node.quarantined:
                self.rarity.add(piece)

    def lease_back(self, member: Member, piece: int) -> None:
        """LEASED -> MISSING."""
        member.leased ^= 1 << piece
        if member.node.peer != SEED:
            self.leased_to_peers -= 1
            if not member.node.quarantined:
                self.rarity.remove(piece)
        self.refresh_need(member)

    def lease_done(self, member: Member, piece: int) -> None:
        """LEASED -> HELD: the count of copies stays."""
        bit = 1 << piece
        node = member.node
        member.leased ^= bit
        member.have |= bit
        if node.peer != SEED:
            self.leased_to_peers -= 1
            self.awaited &= ~bit
        if not node.quarantined:
            self.holders[piece] |= node.bit
            self.held_by_any |= bit
            if member.have == bit:
                self.holding |= node.bit
            if node.rack is not None and not self.rack_have.get(node.rack, 0) & bit:
                self._cover(node.rack, bit)

    def refresh_need(self, member: Member) -> None:
        """Derive `need` anew from the rest."""
        need = 0
        if member.wanted:
            need = self.full & ~(member.have | member.leased)
            if member.node.peer == SEED:
                need &= ~(self.fetching | self.evicted_by_seed)
        self._set_need(member, need)

    def _set_need(self, member: Member, need: int) -> None:
        changed = member.need ^ need
        if not changed:
            return
        node = member.node
        member.need = need
        lacking = self.lacking
        node_bit = node.bit
        while changed:
            bit = changed & -changed
            piece = bit.bit_length() - 1
            left = lacking[piece] = lacking[piece] ^ node_bit
            if left:
                self.open_pieces |= bit
            else:
                self.open_pieces &= ~bit
            changed ^= bit
        if need:
            if not self.wanting & node_bit:
                self.wanting |= node_bit
                node.wanting[self.number] = member
        elif self.wanting & node_bit:
            self.wanting ^= node_bit
            del node.wanting[self.number]

    def _offer(self, node: Node, pieces: int) -> None:
        counted = node.peer != SEED
        for piece in indices(pieces):
            self.holders[piece] |= node.bit
            if counted:
                self.rarity.add(piece)
        if counted:
            self.awaited &= ~pieces
        self.held_by_any |= pieces
        self.holding |= node.bit
        if node.rack is not None:
            self._cover(node.rack, pieces)

    def _withdraw_offer(self, node: Node, pieces: int, left: int) -> None:
        counted = node.peer != SEED
        for piece in indices(pieces):
            self.holders[piece] &= ~node.bit
            if not self.holders[piece]:
                self.held_by_any &= ~(1 << piece)
            if counted:
                self.rarity.remove(piece)
        if not left:
            self.holding &= ~node.bit
        if node.rack is not None:
            self._uncover(node.rack, pieces)

    # --- one inbound copy a rack -----------------------------------------------------------------------------

    def _cover(self, rack: str, pieces: int) -> None:
        """Some node of the rack has these pieces now."""
        self.rack_have[rack] = self.rack_have.get(rack, 0) | pieces
        for piece in indices(pieces):
            self.covered[piece] |= self.rack_nodes[rack]

    def _uncover(self, rack: str, pieces: int) -> None:
        """A node of the rack has these pieces no longer; others may."""
        gone = pieces
        nodes = self.rack_nodes[rack]
        for piece in indices(pieces):
            if self.holders[piece] & nodes:
                gone ^= 1 << piece
        self.rack_have[rack] = self.rack_have.get(rack, 0) & ~gone
        for piece in indices(gone & ~self.inbound_of_rack.get(rack, 0)):
            self.covered[piece] &= ~nodes

    def covered_in(self, rack: str) -> int:
        """Pieces that the rack has or that are on their way into it."""
        return self.rack_have.get(rack, 0) | self.inbound_of_rack.get(rack, 0)

    def hold_rack_back(self, rack: str, piece: int) -> None:
        """The first copy of the piece is on its way into the rack: its other nodes wait for that one."""
        self.inbound_of_rack[rack] = self.inbound_of_rack.get(rack, 0) | 1 << piece
        self.covered[piece] |= self.rack_nodes[rack]

    def let_rack_go(self, rack: str, piece: int) -> None:
        """That copy has come, or will not."""
        self.inbound_of_rack[rack] ^= 1 << piece
        if not self.rack_have.get(rack, 0) >> piece & 1:
            self.covered[piece] &= ~self.rack_nodes[rack]
