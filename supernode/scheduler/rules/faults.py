"""Rule 9, faults: a piece whose lease failed comes from elsewhere, and whoever is to blame waits, sinks or is shut out.

A slow or faulty node is asked last. What one receiver alone says is between it and the source. One that was proved to
serve corrupt pieces is asked for nothing while it is in quarantine.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler import copies
from supernode.scheduler.contract import SEED, CancelLease, FailReason
from supernode.scheduler.rules import admission, holdings, just_in_time, link_rates
from supernode.scheduler.story import WHOLE
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease, Node, Swarm
    from supernode.scheduler.settings import SchedulerSettings
    from supernode.scheduler.state import State

# Failures that say nothing against the source, or not enough.
_NO_FAULT: Final = (
    FailReason.LOCAL,
    FailReason.CANCELLED,
    FailReason.TICKET,
    FailReason.NOT_HELD,
    FailReason.BUSY,
    FailReason.DISPUTED,
)
# Sources that a receiver remembers to have failed it.
_FAILURES_MAX: Final = 64


def succeeded(state: State, lease: Lease) -> None:
    """The lease ended well: its source's faults count half from now on."""
    lease.source.faults >>= 1
    lease.source.served = True
    lease.member.swarm.given_up &= ~lease.source.bit
    lease.receiver.received = True
    lease.receiver.timeouts = 0
    lease.receiver.failures.pop(lease.source.peer, None)
    rank_source(state, lease.source)


def expired(state: State, lease: Lease) -> None:
    """The lease's time is over and its receiver said nothing: that may be its own trouble as well as the source's."""
    state.counters["expired"] += 1
    state.record(lease.member.swarm.number, lease.piece, "lease %x expired", lease.number)
    state.commands.append(CancelLease(lease.number, lease.receiver.peer, "expired"))
    failed(state, lease, FailReason.DISPUTED)


def failed(state: State, lease: Lease, reason: FailReason) -> None:
    """The lease ended without its piece: the piece goes elsewhere, and whoever is to blame waits."""
    settings = state.settings
    source, receiver, swarm = lease.source, lease.receiver, lease.member.swarm
    unserved = not source.served and (reason not in _NO_FAULT or reason is FailReason.DISPUTED)
    if unserved:
        source.unserved_failures += settings.unserved_given_up if _was_silent(state, lease) else 1
    just_in_time.end(state, lease, stored=False)
    if reason is FailReason.BUSY:
        source.up.blocked_until = state.now + settings.busy_backoff_s
        state.timers.set(source.up.blocked_until, TimerKind.NODE, source.peer)
    elif reason is FailReason.LOCAL:
        receiver.down.blocked_until = state.now + settings.local_backoff_s
        state.timers.set(receiver.down.blocked_until, TimerKind.NODE, receiver.peer)
    elif reason is FailReason.NOT_HELD and source.peer in swarm.members:
        holdings.lose(state, swarm.members[source.peer], 1 << lease.piece, "source does not hold it")
    if reason in (FailReason.TIMEOUT, FailReason.DISPUTED) and not unserved:
        # Whoever is to blame: where the receiver is slow, the next lease must last longer, or it never gets a piece.
        receiver.timeouts += 1
    if reason not in _NO_FAULT:
        source.faults += 1
    if reason not in (FailReason.LOCAL, FailReason.CANCELLED):
        _keep_apart(state, receiver, source, busy=reason is FailReason.BUSY)
    if _gives_nobody(settings, source) or _fails_all(state, swarm, source, receiver):
        _give_up(state, swarm, source)
    rank_source(state, source)
    for link in lease.links:
        admission.refresh(link)
    holdings.after_change(state, swarm, source.peer)


def _keep_apart(state: State, receiver: Node, source: Node, *, busy: bool) -> None:
    """The receiver is not given this source for a while, twice as long each time until it gets a piece from it."""
    settings, times = state.settings, receiver.failures.pop(source.peer, 0)
    first_s, most_s = settings.fault_backoff_s, settings.fault_backoff_max_s
    if busy:
        first_s, most_s = settings.busy_backoff_s, settings.busy_backoff_max_s
    receiver.failures[source.peer] = times + 1
    if len(receiver.failures) > _FAILURES_MAX:
        del receiver.failures[next(iter(receiver.failures))]
    state.block(receiver, source)
    backoff_s = min(most_s, first_s * 2 ** min(times, 16))
    state.timers.set(state.now + backoff_s, TimerKind.PAIR, receiver.peer, source.peer)


def _was_silent(state: State, lease: Lease) -> bool:
    """Whether the lease's time passed without an end."""
    return (
        lease.started_at is not None and state.now - lease.started_at >= state.settings.silent_part * lease.expires_in_s
    )


def _gives_nobody(settings: SchedulerSettings, source: Node) -> bool:
    """Whether it failed so often that it is not counted on: sooner if it never gave anything to anybody.

    That is counted by one receiver's word: at worst the origin is asked once more for what nobody else has.
    """
    return source.faults >= settings.faults_given_up or (
        not source.served and source.unserved_failures >= settings.unserved_given_up
    )


def _fails_all(state: State, swarm: Swarm, source: Node, receiver: Node) -> bool:
    """Whether everybody who wants the blob was failed by this source so often that nobody will get it from there."""
    often = state.settings.faults_given_up
    if receiver.failures.get(source.peer, 0) < often:
        return False
    return all(
        member.node.failures.get(source.peer, 0) >= often
        for peer, member in swarm.members.items()
        if peer not in (SEED, source.peer) and member.wanted and copies.wants(member) & ~member.have
    )


def rank_source(state: State, node: Node) -> None:
    """Deprioritize a slow or faulty node as a source, or let it rise again. The seed is what it is.

    One slow transfer deprioritizes nobody: it may have been the other end's doing, and who is asked for nothing stays
    what it is taken for.
    """
    carries = node.up.carries
    slow = carries is not None and node.up.measured > 1 and carries < link_rates.slow_rate(state)
    if node.peer != SEED and (slow or node.faults >= state.settings.faults_deprioritized):
        if not state.deprioritized & node.bit:
            state.deprioritized |= node.bit
            # Pieces that no other node has now may be fetched from the deprioritized ones: see selection.
            for member in node.members.values():
                state.wake_receivers(member.swarm.wanting & state.down.room)
    elif state.deprioritized & node.bit:
        state.deprioritized ^= node.bit


def _give_up(state: State, swarm: Swarm, source: Node) -> None:
    """Nobody gets anything from this node: what it and its like alone hold is missing, or its receivers wait for ever.

    It counts again when it announces again.
    """
    member = swarm.members.get(source.peer)
    if member is None or source.peer == SEED or source.quarantined:
        return
    swarm.given_up |= source.bit
    gone = sum(1 << piece for piece in indices(member.have) if not swarm.holders[piece] & ~swarm.given_up)
    for row in indices(swarm.given_up):
        other = swarm.at_row[row]
        holdings.lose(state, other, gone & other.have, "its only sources give it to nobody")


def quarantine(state: State, node: Node, reason: str) -> None:
    """Grant nothing from this node any more and count its copies no longer; it may still fetch."""
    state.counters["quarantined"] += 1
    for lease in list(node.up.leases.values()):
        just_in_time.cancel(state, lease, "source quarantined")
    for lease in node.down.leases.values():
        # What it is sent is no first copy any more, for nobody will have it from there.
        state.release_first_copy(lease)
    for member in node.members.values():
        copies.ignore(member)
    node.quarantined = True
    node.up.blocked_until = inf
    admission.refresh(node.up)
    for member in node.members.values():
        state.record(member.swarm.number, WHOLE, "peer %d quarantined: %s", node.peer, reason)
        holdings.after_change(state, member.swarm, node.peer)


def end_quarantine(state: State, node: Node) -> None:
    """What it holds can be had again."""
    node.quarantined = False
    node.up.blocked_until = 0.0
    for member in node.members.values():
        copies.heed(member)
    admission.refresh(node.up)
    for member in node.members.values():
        state.record(member.swarm.number, WHOLE, "quarantine of peer %d ended", node.peer)
        state.wake_receivers(member.swarm.wanting & state.down.room)
        holdings.after_change(state, member.swarm, node.peer)
    node.wake()
