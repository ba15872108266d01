"""Matching: after an event, which leases to grant to and from the nodes it touched, until nothing fits.

Afterwards no node with download room and no node with upload room could still serve each other, save where a rule
holds them apart, and such a rule has set a timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler import selection
from supernode.scheduler.contract import SEED
from supernode.scheduler.masks import lowest
from supernode.scheduler.records import SEED_BIT
from supernode.scheduler.rules import first_copies, late_transfers, link_rates, rack_copies, readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supernode.scheduler.records import Node
    from supernode.scheduler.selection import Choice
    from supernode.scheduler.state import State


def match(state: State) -> Iterator[Choice]:
    """What to grant next; each must be granted before the next is asked for.

    The seed's first copies go first, for its link must not idle while it has any; its further copies go last, for
    receivers are better served by an idle peer than by a share of the seed. Other sources choose before receivers:
    what a source holds may be of use to few, what a receiver lacks others have as well. What the seed itself lacks and
    peers hold comes after all that the peers want.
    """
    seed = state.seed
    while state.woken_sources or state.woken_receivers:
        look_at_seed = state.take_source(seed)
        if look_at_seed:
            yield from _from_seed(state, further_copies=False)
        # It may have promised nothing yet for want of one of these.
        look_at_seed = look_at_seed or seed.woken_as_source or _seed_waits_to_promise(state)
        for node in state.take_sources():
            if node is not seed:
                yield from _from_peer(state, node)
        for node in state.take_receivers():
            if node is not seed:
                yield from _to_receiver(state, node)
        if look_at_seed:
            yield from _from_seed(state, further_copies=first_copies.further_copy_allowed(state))
        if seed.wanting:
            yield from _to_receiver(state, seed)


# --- from the seed -------------------------------------------------------------------------------------------------


def _seed_waits_to_promise(state: State) -> bool:
    return state.seed.has_upload_room and first_copies.seed_promises_early(state)


def _from_seed(state: State, *, further_copies: bool) -> Iterator[Choice]:
    seed = state.seed
    while seed.has_upload_room:
        receivers = state.download_room & ~SEED_BIT
        choice = _first_copy(state, receivers) if receivers else None
        if choice is None and receivers and further_copies and not first_copies.seed_promises_early(state):
            choice = _further_copy(state, receivers)
        if choice is None:
            return
        yield choice
        further_copies = further_copies and first_copies.further_copy_allowed(state)


def _first_copy(state: State, receivers: int) -> Choice | None:
    """Swarms as they were opened; first copies of all before further copies of any."""
    seed = state.seed
    for swarm in state.swarms.values():
        wanting = swarm.wanting & receivers
        # Thousands of swarms may be open, of which hardly any has something for anybody: the cheap questions first.
        fresh = first_copies.fresh_pieces(swarm) & swarm.needed_by_any if wanting and not swarm.inline else 0
        waiting = first_copies.receivers_now(state, wanting) if fresh else 0
        # Nearly always the first will do; those that wait may lack others only.
        for piece in indices(fresh if waiting else 0):
            candidates = selection.able(state, swarm, seed, piece, swarm.lacking[piece] & waiting)
            if candidates:
                member = first_copies.choose_receiver(state, swarm, candidates)
                return member, readers.in_order(member, fresh & member.need), seed
    return None


def _further_copy(state: State, receivers: int) -> Choice | None:
    for swarm in state.swarms.values():
        if not swarm.inline:
            found = selection.from_member(state, swarm.seed, receivers)
            if found is not None:
                return found
    return None


# --- from a peer ---------------------------------------------------------------------------------------------------


def _from_peer(state: State, node: Node) -> Iterator[Choice]:
    while node.has_upload_room:
        choice = _for_source(state, node)
        if choice is None:
            return
        yield choice


def _for_source(state: State, node: Node) -> Choice | None:
    """The best lease from a peer with upload room."""
    receivers = state.download_room
    if node.has_download_room:
        receivers ^= node.bit
    # Who wants nothing is no receiver anyway.
    if receivers & SEED_BIT and state.seed.wanting:
        receivers ^= SEED_BIT
    if not receivers:
        return None
    # Where there are racks their trunks hold transfers up, and a rate is no link's own.
    alike = link_rates.alike(state.down_bands, receivers, node.up) if node.rack is None else receivers
    found = _to_any(state, node, alike) if alike else None
    if found is None and alike != receivers:
        return _to_any(state, node, receivers)
    return found


def _to_any(state: State, node: Node, receivers: int) -> Choice | None:
    if len(node.members) == 1:
        for only in node.members.values():
            return selection.from_member(state, only, receivers)
    useful = [(member, member.have & member.swarm.needed_by_any) for member in node.members.values()]
    for _, member in selection.rarest_swarms(useful):
        found = selection.from_member(state, member, receivers)
        if found is not None:
            return found
    return None


# --- to a receiver -------------------------------------------------------------------------------------------------


def _to_receiver(state: State, node: Node) -> Iterator[Choice]:
    if not node.wanting:
        choice = _race(state, node)
        if choice is not None:
            yield choice
        return
    if state.inline_swarms:
        yield from _inline(state, node)
    while node.has_download_room and node.wanting:
        choice = _for_receiver(state, node, first_copies.further_copy_allowed(state))
        if choice is None:
            rack_copies.wait(state, node)
            return
        yield choice


def _inline(state: State, node: Node) -> Iterator[Choice]:
    """Inline blobs take no slot and no turn: the content travels in the grant."""
    seed = state.seed
    if node.peer == SEED or node.blocked_sources & seed.bit or node.download_blocked_until:
        return
    for member in list(node.wanting.values()):
        if member.swarm.inline:
            ready = member.need & member.swarm.seed.have
            if ready:
                yield member, lowest(ready), seed


def _race(state: State, node: Node) -> Choice | None:
    if not node.leases_in or node.down.chains >= node.down.slots:
        return None
    found = late_transfers.to_race(state, node, _sources_for(state, node))
    if found is None:
        return None
    lease, others = found
    state.counters["raced"] += 1
    return lease.member, lease.piece, selection.choose_source(state, node, others)


def _for_receiver(state: State, node: Node, further_copies: bool) -> Choice | None:
    """The best lease for a node with download room."""
    sources = _sources_for(state, node)
    if not sources:
        return None
    if sources & SEED_BIT and node.peer != SEED:
        early = first_copies.seed_promises_early(state)
        # To whom the seed promises early is for it to choose.
        found = None if early else _own_first_copy(state, node)
        if found is not None:
            return found
        if early or not further_copies:
            sources ^= SEED_BIT
    alike = link_rates.alike(state.up_bands, sources, node.down) if node.rack is None else sources
    found = _from_any(state, node, alike) if alike else None
    if found is None and alike != sources:
        return _from_any(state, node, sources)
    return found


def _sources_for(state: State, node: Node) -> int:
    """Nodes with upload room that the node may fetch from."""
    sources = state.upload_room
    if node.has_upload_room:
        sources ^= node.bit
    return sources & ~node.blocked_sources if node.blocked_sources else sources


def _own_first_copy(state: State, node: Node) -> Choice | None:
    """From the seed, which has room, what nobody else has."""
    for member in node.wanting.values():
        swarm = member.swarm
        fresh = first_copies.fresh_pieces(swarm) & member.need
        if not fresh or swarm.inline:
            continue
        if first_copies.receivers_now(state, swarm.wanting & state.download_room) & node.bit:
            return member, readers.in_order(member, fresh), state.seed
    return None


def _from_any(state: State, node: Node, sources: int) -> Choice | None:
    if len(node.wanting) == 1:
        for only in node.wanting.values():
            return selection.for_member(state, only, sources)
    for number, member in selection.rarest_swarms([(member, member.need) for member in node.wanting.values()]):
        found = selection.for_member(state, member, sources)
        if found is not None:
            # Where two are as rare, the next lease of this node goes to its next swarm.
            del node.wanting[number]
            node.wanting[number] = member
            return found
    return None
