"""Matching: after an event, which leases to grant to and from the nodes it touched, until nothing fits.

Afterwards no node with download room and no node with upload room could still serve each other, save where a rule
holds them apart, and such a rule has set a timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import selection
from supernode.scheduler.masks import lowest
from supernode.scheduler.records import SEED_BIT
from supernode.scheduler.rules import first_copies, late_transfers, preheats, rack_copies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supernode.scheduler.records import Choice, Node
    from supernode.scheduler.state import State


def match(state: State) -> Iterator[Choice]:
    """What to grant next; each must be granted before the next is asked for.

    The seed's first copies go first, for its link must not idle while it has any; its further copies go last, for
    receivers are better served by an idle peer than by a share of the seed. Other sources choose before receivers:
    what a source holds may be of use to few, what a receiver lacks others have as well. What the seed itself lacks and
    peers hold comes after all that the peers want.
    """
    seed = state.seed
    while state.up.woken or state.down.woken:
        look_at_seed = seed.up.let_sleep()
        if look_at_seed:
            yield from _from_seed(state, further_copies=False)
        # It may have promised nothing yet for want of one of these.
        look_at_seed = look_at_seed or seed.up.woken or first_copies.seed_promises_early(state)
        for link in state.up.take_woken():
            if link.node is not seed:
                yield from _from_peer(state, link.node)
        for link in state.down.take_woken():
            if link.node is not seed:
                yield from _to_receiver(state, link.node)
        if look_at_seed:
            yield from _from_seed(state, further_copies=first_copies.further_copy_allowed(state))
        if seed.wanting:
            yield from _to_receiver(state, seed)


def _from_seed(state: State, *, further_copies: bool) -> Iterator[Choice]:
    while state.seed.up.has_room and (receivers := state.down.room & ~SEED_BIT):
        choice = first_copies.from_seed(state, receivers)
        if choice is None and further_copies and not first_copies.seed_promises_early(state):
            choice = selection.from_seed(state, receivers)
        if choice is None:
            return
        yield choice
        further_copies = further_copies and first_copies.further_copy_allowed(state)


def _from_peer(state: State, node: Node) -> Iterator[Choice]:
    while node.up.has_room:
        # What the seed lacks comes after all that the peers want.
        others = ~(node.bit | SEED_BIT if state.seed.wanting else node.bit)
        choice = selection.from_source(state, node, state.down.room & others)
        if choice is None:
            return
        yield choice


def _to_receiver(state: State, node: Node) -> Iterator[Choice]:
    if not node.wanting:
        yield from _race(state, node)
        return
    if state.inline_swarms:
        yield from _inline(state, node)
    while node.down.has_room and node.wanting:
        choice = _best_for(state, node)
        if choice is None:
            if not preheats.rests(state, node):
                rack_copies.wait(state, node)
            return
        yield choice


def _best_for(state: State, node: Node) -> Choice | None:
    """The best lease for a node with download room: what only the seed has, then the rarest that any source has."""
    # Asked in any case, for it has the seed woken when the answer changes.
    further_copies = first_copies.further_copy_allowed(state)
    sources = state.sources_for(node)
    if sources & SEED_BIT and node is not state.seed:
        if first_copies.seed_promises_early(state):
            # To whom is for the seed to choose.
            sources ^= SEED_BIT
        else:
            first_copy = first_copies.for_receiver(state, node)
            if first_copy is not None:
                return first_copy
            if not further_copies:
                sources ^= SEED_BIT
    return selection.for_receiver(state, node, sources)


def _inline(state: State, node: Node) -> Iterator[Choice]:
    """Inline blobs take no slot and no turn: the content travels in the grant."""
    seed = state.seed
    if node is seed or node.blocked_sources & SEED_BIT or node.down.blocked_until:
        return
    for member in list(node.wanting.values()):
        ready = member.need & member.swarm.seed.have if member.swarm.inline else 0
        if ready:
            yield member, lowest(ready), seed


def _race(state: State, node: Node) -> Iterator[Choice]:
    """A node that has nothing else to fetch asks a second source for what is late."""
    found = late_transfers.to_race(state, node)
    if found is not None:
        lease, others = found
        state.counters["raced"] += 1
        yield lease.member, lease.piece, selection.choose_source(state, node, others)
