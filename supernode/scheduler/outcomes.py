"""What follows from the end of a lease and from a loss of pieces: what is learnt, who is avoided or quarantined.

Shared by the machine's handlers; gives commands through Core alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler import contract, origin, transfer_timing
from supernode.scheduler.contract import SEED, FailReason, QuarantinePeer
from supernode.scheduler.story import WHOLE
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease
    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.swarm import Member, Swarm

# Failures that say nothing against the source.
_NO_FAULT: Final = (FailReason.LOCAL, FailReason.CANCELLED, FailReason.TICKET, FailReason.NOT_HELD, FailReason.BUSY)
# A shorter time says nothing about a link, whoever states it; it would only make its rate infinite.
_BRIEFEST_S: Final = 1e-6


def delivered(core: Core, lease: Lease, elapsed_s: float) -> None:
    """A lease ended with its piece: learn from it, end its rival."""
    source, receiver = lease.source, lease.receiver
    if not lease.inline:
        if elapsed_s <= 0.0 and lease.started_at is not None:
            elapsed_s = core.now - lease.started_at
        if elapsed_s >= _BRIEFEST_S:
            rate = lease.size_bytes / elapsed_s
            if lease.started_at == lease.granted_at:
                took_s = max(0.0, core.now - elapsed_s - lease.granted_at)
                core.book.reaction_s += (took_s - core.book.reaction_s) / 64
            beside_up, beside_down = 1.0, 1.0
            if lease.started_at is not None:
                beside_up, beside_down = transfer_timing.beside(core, lease, rate)
            if lease.member.swarm.wanting not in (0, receiver.bit):
                # With others to serve, a second transfer on a link delays every hop by more than a gap costs.
                source.up.forget_gap()
                receiver.down.forget_gap()
            else:
                source.up.saw_gap(lease.granted_at, lease.started_at, elapsed_s, core.now)
                receiver.down.saw_gap(lease.granted_at, lease.started_at, elapsed_s, core.now)
            if source.up.chains > 1 or receiver.down.chains > 1:
                transfer_timing.look_at_stuck(core, source, receiver)
            up_speed, down_speed = source.up.speed(), receiver.down.speed()
            source.up.learn(rate, beside_up, beside_down, down_speed)
            receiver.down.learn(rate, beside_down, beside_up, up_speed)
            core.book.band(source)
            core.book.band(receiver)
            typical = core.book.typical_flow
            core.book.typical_flow = rate if typical is None else typical + (rate - typical) / 64
    source.faults >>= 1
    receiver.timeouts = 0
    core.book.judge(source)
    core.counters["stored"] += 1
    racing = lease.member.leases[lease.piece]
    if len(racing) > 1:
        for rival in [other for other in racing if other is not lease]:
            core.cancel(rival, "another source was faster")
    # Brings the masks of nodes with room up to date, too, after what was learnt.
    core.finish(lease, stored=True)


def expire(core: Core, lease: Lease) -> None:
    """The lease's time is over and its receiver said nothing."""
    core.counters["expired"] += 1
    core.stories.tell(core.now, lease.member.swarm.number, lease.piece, "lease %x expired", lease.number)
    core.commands.append(contract.CancelLease(lease.number, lease.receiver.peer, "expired"))
    failed(core, lease, FailReason.TIMEOUT)


def failed(core: Core, lease: Lease, reason: FailReason) -> None:
    """The lease ended without its piece: the piece goes elsewhere, and whoever is to blame waits."""
    settings = core.settings
    source, receiver, swarm = lease.source, lease.receiver, lease.member.swarm
    core.finish(lease, stored=False)
    if reason is FailReason.BUSY:
        source.blocked_up_until = core.now + settings.busy_backoff_s
        core.timers.set(source.blocked_up_until, TimerKind.NODE_UP, source.peer)
    elif reason is FailReason.LOCAL:
        receiver.blocked_down_until = core.now + settings.local_backoff_s
        core.timers.set(receiver.blocked_down_until, TimerKind.NODE_DOWN, receiver.peer)
    elif reason is FailReason.NOT_HELD and source.peer in swarm.members:
        lose(core, swarm.members[source.peer], 1 << lease.piece, "source does not hold it")
    if reason is FailReason.TIMEOUT:
        receiver.timeouts += 1
    if reason not in _NO_FAULT:
        source.faults += 1
        if source.faults >= settings.faults_given_up:
            _give_up(core, swarm, source)
    if reason not in (FailReason.BUSY, FailReason.LOCAL, FailReason.CANCELLED):
        backoff_s = min(
            settings.fault_backoff_max_s, settings.fault_backoff_s * 2 ** min(max(source.faults - 1, 0), 16)
        )
        core.book.avoid(receiver, source)
        core.timers.set(core.now + backoff_s, TimerKind.PAIR, receiver.peer, source.peer)
    core.book.judge(source)
    core.book.refresh_up(source)
    core.book.refresh_down(receiver)
    if reason is FailReason.CORRUPT and source.peer != SEED and not source.quarantined:
        quarantine(core, source, f"served piece {lease.piece} corrupt")
    after_change(core, swarm, source.peer)


def _give_up(core: Core, swarm: Swarm, source: Node) -> None:
    """Nobody gets anything from this node: what it alone holds counts as missing, or its receivers wait for ever.

    It counts again when it announces again.
    """
    member = swarm.members.get(source.peer)
    if member is None or source.peer == SEED or source.quarantined:
        return
    alone = sum(1 << piece for piece in indices(member.have) if swarm.holders[piece] == source.bit)
    lose(core, member, alone, "its only source gives it to nobody")


def quarantine(core: Core, node: Node, reason: str) -> None:
    """Grant nothing from this node any more and count its copies no longer; it may still fetch."""
    core.counters["quarantined"] += 1
    core.commands.append(QuarantinePeer(node.peer, reason))
    for lease in list(node.leases_out.values()):
        core.cancel(lease, "source quarantined")
    for lease in node.leases_in.values():
        # What it is sent is no first copy any more, for nobody will have it from there.
        core.let_seed_go(lease)
    for member in node.members.values():
        member.swarm.ignore_node(member)
    node.quarantined = True
    core.book.refresh_up(node)
    for member in node.members.values():
        core.stories.tell(core.now, member.swarm.number, WHOLE, "peer %d quarantined: %s", node.peer, reason)
        after_change(core, member.swarm, node.peer)


def lose(core: Core, member: Member, pieces: int, reason: str) -> None:
    """HELD -> MISSING, and what is being fetched from there must come from elsewhere."""
    if not pieces:
        return
    for lease in list(member.node.leases_out.values()):
        if lease.member.swarm is member.swarm and pieces >> lease.piece & 1:
            core.cancel(lease, reason)
    member.swarm.drop_copies(member, pieces)


def after_change(core: Core, swarm: Swarm, peer: int) -> None:
    """Members came, went or lost pieces: what the seed wants, who is elected and what is missing may differ."""
    seed = swarm.seed
    wanted = swarm.leased_to_peers > 0 or bool(swarm.wanting & ~seed.node.bit)
    if wanted != seed.wanted:
        seed.wanted = wanted
        swarm.refresh_need(seed)
    core.wake(seed.node)
    plan = core.plans[swarm.number]
    if plan.elected == peer:
        member = swarm.members.get(peer)
        if member is None or not member.wanted:
            # Who wants nothing any more because it has everything did what it was elected for.
            origin.tried(core, swarm, plan, peer, ok=member is not None and member.have == swarm.full)
    origin.review(core, swarm, plan)


def clear(core: Core, swarm: Swarm, reason: str) -> None:
    """Nobody holds, wants or is sent anything of it."""
    plan = core.plans[swarm.number]
    plan.elected = None
    plan.tried.clear()
    plan.opened = False
    plan.once_ready = 0
    for member in swarm.members.values():
        member.wanted = False
        member.reader = None
    for member in list(swarm.members.values()):
        for lease in [lease for racing in member.leases.values() for lease in racing]:
            core.cancel(lease, reason)
    for member in swarm.members.values():
        swarm.drop_copies(member, member.have)
    core.stories.tell(core.now, swarm.number, WHOLE, "%s", reason)
