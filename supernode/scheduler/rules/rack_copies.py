"""Rule 6, one copy of a piece into a rack: what a rack holds or awaits, its nodes take from each other alone.

A node whose rack has no slot for it for long may take from any rack, until it is served. Zones without a rack only
make the nearest come first, which is selection's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler import copies
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Node, Swarm
    from supernode.scheduler.state import State


def bound_pieces(state: State, swarm: Swarm, node: Node) -> int:
    """Pieces that the node's rack has, or that are on their way into it: they come from there and nowhere else."""
    if node.rack is None or state.rack_exempt & node.bit:
        return 0
    return swarm.of_rack(node.rack)


def may_take(state: State, swarm: Swarm, source: Node, piece: int, receivers: int) -> int:
    """Those of the receivers that may take this piece from this source: it is not blocked for them (rule 9), and either
    their racks do not have it, or the source is in theirs.
    """
    in_rack = swarm.in_rack[piece]
    if in_rack:
        near = swarm.rack_nodes[source.rack] if source.rack is not None else 0
        receivers &= ~in_rack | near | state.rack_exempt
    if state.blocked_sources & source.bit:
        # Few are blocked: look at the ones that will be chosen from, not at all.
        for row in indices(receivers):
            if state.at(row).blocked_sources & source.bit:
                receivers ^= 1 << row
    return receivers


def reserve(lease: Lease) -> None:
    """A piece was granted: if it is the first of its rack, the other nodes of that wait for this copy."""
    swarm, rack = lease.member.swarm, lease.receiver.rack
    if rack is None or lease.inline or swarm.rack_have.get(rack, 0) >> lease.piece & 1:
        return
    if swarm.rack_inbound.get(rack, 0) >> lease.piece & 1:
        # An exempt node does not wait for that one.
        return
    lease.rack_first = rack
    copies.reserve_for_rack(swarm, rack, lease.piece)


def end_reservation(state: State, lease: Lease, *, stored: bool) -> None:
    """The lease ended: without its piece, or with one that counts at nobody, the others of the rack look elsewhere."""
    if lease.rack_first is None:
        return
    swarm = lease.member.swarm
    copies.end_rack_reservation(swarm, lease.rack_first, lease.piece)
    if not stored or lease.receiver.quarantined:
        state.wake_receivers(swarm.lacking[lease.piece] & state.places.get(lease.rack_first, 0))


def wait(state: State, node: Node) -> None:
    """Nothing was found for the node: if nothing is being sent to it, its time of waiting for its rack runs."""
    if node.rack is None or node.down.leases or node.rack_wait_until is not None:
        return
    typical = state.typical_rate
    piece_s = state.largest_piece_bytes / typical if typical else 0.0
    patience_s = max(state.settings.rack_patience_s, state.settings.rack_patience_piece_times * piece_s)
    node.rack_wait_until = state.now + patience_s
    state.timers.set(node.rack_wait_until, TimerKind.NODE, node.peer)


def end_wait(state: State, node: Node) -> None:
    """Its timer surfaced: if it has waited for long enough it may take from any rack."""
    if node.rack_wait_until is not None and node.rack_wait_until <= state.now:
        state.rack_exempt |= node.bit


def served(state: State, node: Node) -> None:
    """Something was granted to the node: it waits for its rack again."""
    if node.rack_wait_until is not None:
        node.rack_wait_until = None
        state.rack_exempt &= ~node.bit
