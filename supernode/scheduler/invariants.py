"""The rules that must hold after every event, recomputed from scratch where the machine keeps them incrementally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler import copies
from supernode.scheduler.contract import SEED
from supernode.scheduler.records import DOWN, UP
from supernode.scheduler.rules import first_copies, preheats, rack_copies

if TYPE_CHECKING:
    from supernode.scheduler.machine import Scheduler
    from supernode.scheduler.records import Lease, Link, Member, Node, OriginPlan, Swarm
    from supernode.scheduler.state import State


def check(scheduler: Scheduler) -> None:
    """Raises AssertionError naming the rule that is broken."""
    state = scheduler.inspect()
    plans = state.plans
    for swarm in state.swarms.values():
        _one_state_each(state, swarm)
        _masks_agree(swarm)
        _rarity_agrees(swarm)
        _origin_spared(state, swarm, plans[swarm.number])
        _racks_agree(swarm)
        _in_rack_agree(swarm)
        _first_copies_agree(swarm)
    for node in state.nodes.values():
        for link in (node.up, node.down):
            _slots_kept(node, link)
            _free_masks_agree(node, link)
        _blocked_agree(state, node)
    for lease in state.leases.values():
        _source_sound(state, lease)
        _timed(state, lease)
    _nobody_starves(state, plans)
    _bounded(state)


def _one_state_each(state: State, swarm: Swarm) -> None:
    for peer, member in swarm.members.items():
        where = f"swarm {swarm.number}, peer {peer}"
        assert state.nodes.get(peer) is member.node, f"one state each: {where} is a member without a session"
        assert not member.have & member.leased, f"one state each: {where} holds what is leased to it"
        assert not member.need & (member.have | member.leased), f"one state each: {where} needs what it has or awaits"
        assert not (member.have | member.leased | member.need) & ~swarm.full, f"one state each: {where}: no such piece"
        leased = 0
        for piece, racing in member.leases.items():
            assert 1 <= len(racing) <= 2, f"one state each: {where}, piece {piece} has {len(racing)} leases"
            assert len({lease.source.peer for lease in racing}) == len(racing), f"{where}: a source races itself"
            assert all(state.leases.get(lease.number) is lease for lease in racing), f"{where}: a dead lease"
            leased |= 1 << piece
        assert leased == member.leased, f"one state each: {where}: leased mask and leases differ"
        if member.wanted and peer != SEED:
            rest = copies.wants(member) & ~(member.have | member.leased)
            assert member.need == rest, f"one state each: {where}: need is not what is missing"


def _masks_agree(swarm: Swarm) -> None:
    asked = 0
    for member in swarm.members.values():
        asked |= member.asked if member is not swarm.seed else 0
    assert swarm.asked == asked, "masks agree: what is asked for by ranges"
    for piece in range(swarm.layout.count):
        holders = lacking = 0
        for member in swarm.members.values():
            if member.have >> piece & 1 and not member.node.quarantined:
                holders |= member.node.bit
            if member.need >> piece & 1:
                lacking |= member.node.bit
        assert swarm.holders[piece] == holders, f"masks agree: holders of piece {piece}"
        assert swarm.lacking[piece] == lacking, f"masks agree: nodes lacking piece {piece}"
        assert swarm.held_by_any >> piece & 1 == bool(holders), f"masks agree: piece {piece} held by any"
        assert swarm.needed_by_any >> piece & 1 == bool(lacking), f"masks agree: piece {piece} open"
    for member in swarm.members.values():
        node = member.node
        assert bool(swarm.wanting & node.bit) == bool(member.need), f"masks agree: {node.peer} wanting"
        assert (swarm.number in node.wanting) == bool(member.need), f"masks agree: swarms {node.peer} wants"
        pulls = member.wanted and not member.background and node.peer != SEED
        assert bool(swarm.pulling & node.bit) == pulls, f"masks agree: {node.peer} pulling"
        offers = bool(member.have) and not node.quarantined
        assert bool(swarm.holding & node.bit) == offers, f"masks agree: {node.peer} holding"


def _rarity_agrees(swarm: Swarm) -> None:
    for piece, counted in enumerate(swarm.rarity.counts):
        copies = sum(
            (member.have | member.leased) >> piece & 1
            for peer, member in swarm.members.items()
            if peer != SEED and not member.node.quarantined
        )
        assert counted == copies, f"rarity agrees: piece {piece} has {copies} copies, counted {counted}"
    levels = [level for level in swarm.rarity.levels if level]
    assert sum(level.bit_count() for level in levels) == swarm.layout.count, (
        "rarity agrees: a piece on two levels or none"
    )
    previous = -1
    for level in levels:
        copies_of_level = [swarm.rarity.counts[piece] for piece in indices(level)]
        assert min(copies_of_level) > previous, "rarity agrees: levels out of order"
        previous = max(copies_of_level)


def _origin_spared(state: State, swarm: Swarm, plan: OriginPlan) -> None:
    assert bool(swarm.fetching) <= bool(plan.fetch_id), "origin spared: pieces awaited without a fetch"
    assert not swarm.fetching & ~plan.asked, "origin spared: awaiting what was not asked for"
    assert not swarm.fetching & swarm.seed.have, "origin spared: awaiting what the seed has"


def _racks_agree(swarm: Swarm) -> None:
    for rack, pieces in swarm.rack_inbound.items():
        for piece in indices(pieces):
            first = [
                lease
                for member in swarm.members.values()
                for lease in member.leases.get(piece, ())
                if lease.rack_first == rack
            ]
            assert len(first) == 1, f"one inbound copy a rack: {len(first)} of piece {piece} into {rack}"


def _in_rack_agree(swarm: Swarm) -> None:
    nodes: dict[str, int] = {}
    for member in swarm.members.values():
        if member.node.rack is not None:
            nodes[member.node.rack] = nodes.get(member.node.rack, 0) | member.node.bit
    for piece, found in enumerate(swarm.in_rack):
        expected = 0
        for rack, members in nodes.items():
            held = bool(swarm.holders[piece] & members)
            assert bool(swarm.rack_have.get(rack, 0) >> piece & 1) == held, f"racks agree: piece {piece} in {rack}"
            if held or swarm.rack_inbound.get(rack, 0) >> piece & 1:
                expected |= members
        assert found == expected, f"racks agree: nodes that piece {piece} is bound to their rack for"


def _first_copies_agree(swarm: Swarm) -> None:
    first_copies = [
        lease.piece
        for member in swarm.members.values()
        for racing in member.leases.values()
        for lease in racing
        if lease.first_copy
    ]
    for piece in indices(swarm.first_copy_pending):
        assert first_copies.count(piece) == 1, f"first copies first: piece {piece} is pending and not on its way"
        assert not swarm.holders[piece] & ~swarm.seed.node.bit, f"first copies first: piece {piece} is at a peer"


def _slots_kept(node: Node, link: Link) -> None:
    way = link.way
    where = f"slots kept: peer {node.peer} {'downlink' if way else 'uplink'}"
    leases = [lease for lease in link.leases.values() if not lease.inline]
    heads = [lease for lease in leases if lease.before[way] is None]
    assert link.chains == len(heads), f"{where}: {link.chains} chains"
    stalled = sum(lease.stalled for lease in heads)
    assert link.stalled == stalled, f"{where}: {link.stalled} stalled"
    most = link.slots + stalled if way == UP else link.slots
    assert len(heads) <= most, f"{where}: {len(heads)} of {link.slots}, {stalled} stalled"
    followed = [id(lease.before[way]) for lease in leases if lease not in heads]
    assert len(set(followed)) == len(followed), f"{where}: two wait for one transfer"
    assert set(followed) <= {id(lease) for lease in leases}, f"{where}: waits in vain"
    expected = {
        lease.number for lease in leases if lease.ending[way] and not lease.stalled and lease.after[way] is None
    }
    assert {lease.number for lease in link.ending} == expected, f"{where}: ends to follow"


def _free_masks_agree(node: Node, link: Link) -> None:
    where = f"free masks agree: {node.peer} {'downlink' if link.way else 'uplink'}"
    has_room = link.room() and not link.blocked_until
    assert bool(link.direction.room & node.bit) == link.has_room == has_room, f"{where}: room"
    assert bool(link.direction.idle & node.bit) == link.idle == (link.chains == 0), f"{where}: idle"


def _blocked_agree(state: State, node: Node) -> None:
    for row in indices(node.blocked_sources):
        assert state.at(row).blocked_receivers & node.bit, (
            f"blocked agree: {node.peer} is blocked from a source that knows nothing"
        )
    for row in indices(node.blocked_receivers):
        assert state.at(row).blocked_sources & node.bit, f"blocked agree: {node.peer} blocks one that does not know"
    assert bool(state.blocked_sources & node.bit) == bool(node.blocked_receivers), (
        f"blocked agree: {node.peer} blocked for any"
    )
    assert not node.quarantined or not node.up.has_room, f"blocked agree: {node.peer} is quarantined and has room"


def _source_sound(state: State, lease: Lease) -> None:
    source, swarm = lease.source, lease.member.swarm
    what = f"sound source: lease {lease.number:x} of piece {lease.piece} from {source.peer}"
    assert state.nodes.get(source.peer) is source, f"{what}: lost"
    assert state.nodes.get(lease.receiver.peer) is lease.receiver, f"{what}: receiver lost"
    assert not source.quarantined, f"{what}: quarantined"
    assert source is not lease.receiver, f"{what}: itself"
    assert swarm.members[source.peer].have >> lease.piece & 1, f"{what}: not a holder"
    assert lease.member in lease.receiver.members.values(), f"{what}: receiver no member"


def _timed(state: State, lease: Lease) -> None:
    waits = lease.before[UP] is not None or lease.before[DOWN] is not None
    assert waits == (lease.started_at is None), f"timed: lease {lease.number:x} neither waits nor runs"
    if not waits:
        assert lease.due_s >= 0.0, f"timed: lease {lease.number:x} runs without a deadline"


def _nobody_starves(state: State, plans: dict[int, OriginPlan]) -> None:
    """No two nodes with room could serve each other, unless a rule holds them apart and a timer will look again."""
    timed = state.timers.next_due() is not None
    for swarm in state.swarms.values():
        for row in indices(swarm.wanting):
            node = state.at(row)
            member = swarm.members[node.peer]
            _asked_for(state, swarm, plans[swarm.number], member, timed)
            if not state.down.room & node.bit:
                assert timed, f"nobody starves: {node.peer} has no room and nothing is timed"
                continue
            for source_row in indices(state.up.room & swarm.holding & ~node.bit & ~node.blocked_sources):
                source = state.at(source_row)
                useful = swarm.members[source.peer].have & member.need
                if swarm.number in state.preheats and (preheats.pulling(state) or state.preheats_rest & node.bit):
                    # It waits for a pull, or has had its share.
                    waits = bool(timed or state.fetches)
                    assert not useful or waits, f"nobody starves: {node.peer} could preheat from {source.peer}"
                    continue
                if node.rack is not None and node.rack != source.rack and not state.rack_exempt & node.bit:
                    elsewhere = useful & rack_copies.bound_pieces(state, swarm, node)
                    assert not elsewhere or timed, (
                        f"nobody starves: {node.peer} waits for its rack and nothing is timed"
                    )
                    useful ^= elsewhere
                if state.deprioritized & source.bit:
                    # Left to sound nodes, which end what keeps them.
                    assert not useful or timed, f"nobody starves: {node.peer} could fetch from {source.peer}"
                    useful &= swarm.rarity.up_to((swarm.holding & state.deprioritized).bit_count())
                if source.peer == SEED:
                    assert not useful or timed, f"nobody starves: {node.peer} could fetch from the seed"
                    useful &= swarm.rarity.levels[0] if not swarm.inline else useful
                    # It looks early for first copies, but not to everybody.
                    useful &= -1 if first_copies.receivers_now(state, swarm.wanting & state.down.room) & node.bit else 0
                assert not useful, f"nobody starves: {node.peer} could fetch {useful:x} from {source.peer}"


def _asked_for(state: State, swarm: Swarm, plan: OriginPlan, member: Member, timed: bool) -> None:
    absent = member.need & ~swarm.held_by_any & ~swarm.seed.leased
    if member.node.peer == SEED or not absent or plan.fetch_id or plan.elected is not None:
        return
    if swarm.number in state.preheats and any(
        other.fetch_id and number not in state.preheats for number, other in state.plans.items()
    ):
        return  # that fetch ends before
    assert timed, f"nobody starves: piece(s) {absent:x} of swarm {swarm.number} are nowhere and not asked for"


def _bounded(state: State) -> None:
    assert len(state.timers) <= 4 * len(state.leases) + 1024 + 64, "bounded: stale timers pile up"
    assert not state.commands, "bounded: commands left behind"
    assert not state.up.woken, "bounded: sources left dirty"
    assert not state.down.woken, "bounded: receivers left dirty"
