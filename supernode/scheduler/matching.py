"""Matching: after an event, find leases for the nodes it touched until nothing fits. Which lease is policy's choice.

Afterwards no node with download room and no node with upload room could still serve each other, save where a rule
holds them apart, and such a rule has set a timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import policy, receiver_selection, source_selection
from supernode.scheduler.contract import SEED
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node


def match(core: Core) -> None:
    """Grant all that can be granted to and from the dirty nodes.

    The seed's first copies go first, for its link must not idle while it has any; its further copies go last, for
    receivers are better served by an idle peer than by a share of the seed. Other sources choose before receivers:
    what a source holds may be of use to few, what a receiver lacks others have as well. What the seed itself lacks and
    peers hold comes after all that the peers want.
    """
    seed = core.book.nodes[SEED]
    while core.dirty_up or core.dirty_down:
        spare = seed.dirty_up
        if spare:
            core.dirty_up.remove(seed)
            seed.dirty_up = False
            _drain(core, seed, seed_free=False)
        # It may have promised nothing yet for want of one of these.
        spare = spare or seed.dirty_up or (seed.gives and policy.seed_is_early(core))
        for node in core.take_sources():
            if node is not seed and node.gives:
                _drain(core, node, seed_free=False)
        for node in core.take_receivers():
            if node is not seed and (node.takes or not node.wanting or core.inline_swarms):
                _feed(core, node)
        if spare:
            _drain(core, seed, seed_free=seed_is_free(core))
        if seed.wanting:
            _feed(core, seed)


def _feed(core: Core, node: Node) -> None:
    if not node.wanting:
        if node.leases_in and node.down.chains < node.down.slots:
            _race(core, node)
        return
    if core.inline_swarms:
        _feed_inline(core, node)
    while node.takes and node.wanting:
        choice = receiver_selection.for_receiver(core, node, seed_is_free(core))
        if choice is None:
            if node.rack is not None and not node.leases_in:
                _let_wait(core, node)
            return
        member, piece, source = choice
        core.grant(member, piece, source)


def _let_wait(core: Core, node: Node) -> None:
    """Its rack has what it lacks, or will, but no slot for it: after some time the node may fetch from elsewhere."""
    if node.hungry_at is None:
        typical = core.book.typical_flow
        piece_s = core.largest_piece_bytes / typical if typical else 0.0
        node.hungry_at = core.now + max(
            core.settings.rack_patience_s, core.settings.rack_patience_piece_times * piece_s
        )
        core.timers.set(node.hungry_at, TimerKind.NODE_DOWN, node.peer)


def _drain(core: Core, node: Node, *, seed_free: bool) -> None:
    while node.gives:
        choice = source_selection.for_source(core, node, seed_free)
        if choice is None:
            return
        member, piece, _ = choice
        core.grant(member, piece, node)
        seed_free = seed_free and seed_is_free(core)


def _feed_inline(core: Core, node: Node) -> None:
    """Inline blobs take no slot and no turn: the content travels in the grant."""
    seed = core.book.nodes[SEED]
    if node.peer == SEED or node.avoid & seed.bit or node.blocked_down_until:
        return
    for member in list(node.wanting.values()):
        if member.swarm.inline:
            ready = member.need & member.swarm.seed.have
            if ready:
                core.grant(member, policy.lowest(ready), seed)


def _race(core: Core, node: Node) -> None:
    choice = receiver_selection.race_for_receiver(core, node)
    if choice is not None:
        core.counters["raced"] += 1
        core.grant(*choice)


def seed_is_free(core: Core) -> bool:
    """Whether the seed may send a further copy: only if that delays the next ready piece by at most half a piece time.

    A piece that is overdue by more than that is waited for no longer.
    """
    if not core.fetches:
        return True
    seed = core.book.nodes[SEED]
    next_at = core.arrivals.next_at()
    flow = seed.up.speed()
    if next_at is None or not flow or seed.up.room_for_two():
        return True
    piece_time_s = core.largest_piece_bytes / flow
    if next_at - core.now >= piece_time_s / 2 or core.now - next_at >= piece_time_s / 2:
        return True
    until = next_at + piece_time_s / 2
    if core.arrivals.woken_for != until:
        core.arrivals.woken_for = until
        core.timers.set(until, TimerKind.NODE_UP, SEED)
    return False
