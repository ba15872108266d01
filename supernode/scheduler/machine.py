"""The scheduler: a pure state machine that decides which node fetches which piece from where.

Rules. A piece is leased as soon as somebody holds it and somebody with room wants it (policy, matching). The origin
is asked only for what no live node holds (origin). Every lease ends once: stored, failed, cancelled or expired here.
Nothing an event says is trusted to fit: what names an unknown swarm, peer, lease or piece is ignored and told in the
story. No I/O, no clock, no global randomness; events come in order with a `now` that never decreases.

    MISSING --GrantLease--> LEASED --PieceStored--> HELD
       ^                      |                       |
       +---FetchFailed, expiry, CancelLease-----------+---PieceEvicted, PeerAnnounced, SwarmVoided
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from proto.pieces import PieceLayout, indices
from supernode.scheduler import contract, origin, outcomes, transfer_timing
from supernode.scheduler.contract import SEED, Command, Event
from supernode.scheduler.lease import Lease
from supernode.scheduler.leases import Core
from supernode.scheduler.link import Link
from supernode.scheduler.matching import match
from supernode.scheduler.settings import SchedulerSettings
from supernode.scheduler.story import NOWHERE, WHOLE
from supernode.scheduler.swarm import Member, Swarm
from supernode.scheduler.timers import Timer, TimerKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supernode.scheduler.nodes import Node


class Scheduler:
    """Implements proto.machine.Machine[Event, Command].

    `epoch` is the supernode's start count (0 <= epoch < 2**23); lease and fetch ids are `epoch << 40 | counter`.
    `seed_upload_rate_bytes_s` is the supernode's uplink where the operator states it.
    """

    def __init__(
        self,
        *,
        seed: int | random.Random,
        epoch: int,
        settings: SchedulerSettings | None = None,
        seed_upload_slots: int = 8,
        seed_download_slots: int = 8,
        seed_upload_rate_bytes_s: float | None = None,
    ) -> None:
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        self.settings = settings or SchedulerSettings()
        self._core = Core(rng, self.settings, epoch)
        self._core.book.join(
            SEED, "", Link(seed_upload_slots, seed_upload_rate_bytes_s), Link(seed_download_slots, None)
        )
        self._handlers: dict[type, Callable[..., None]] = {
            contract.PieceStored: self._piece_stored,
            contract.FetchFailed: self._fetch_failed,
            contract.PeerJoined: self._peer_joined,
            contract.PeerLost: self._peer_lost,
            contract.SwarmOpened: self._swarm_opened,
            contract.RecoveryPeerReturned: self._recovery_peer_returned,
            contract.PeerAnnounced: self._peer_announced,
            contract.PeerWithdrew: self._peer_withdrew,
            contract.PieceEvicted: self._piece_evicted,
            contract.ReaderMoved: self._reader_moved,
            contract.OriginEnded: self._origin_ended,
            contract.OriginTried: self._origin_tried,
            contract.OriginHeadway: self._origin_headway,
            contract.SwarmVoided: self._swarm_voided,
            contract.SwarmClosed: self._swarm_closed,
        }

    # --- the contract ----------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; returns the commands it gives rise to. Never raises for what an event says."""
        core = self._core
        core.now = now
        # The event before the timers: a report that came in the last moment is not late.
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        timers = core.timers
        while (due := timers.pop_due(now)) is not None:
            if isinstance(due, Lease):
                if transfer_timing.due(core, due):
                    outcomes.expire(core, due)
            else:
                self._timer(due)
        if core.dirty_up or core.dirty_down:
            match(core)
        timers.sweep(len(core.leases))
        commands, core.commands = core.commands, []
        return commands

    def next_wakeup(self) -> float | None:
        """When Wakeup must be handled at the latest; None when nothing is pending."""
        return self._core.timers.next_due()

    def story(self, swarm: int, piece: int) -> list[str]:
        """Recent happenings of one piece, oldest first."""
        return self._core.stories.of(swarm, piece)

    def ignored(self) -> list[str]:
        """Recent events that named what the machine does not know."""
        return self._core.stories.nowhere()

    @property
    def counters(self) -> Mapping[str, int]:
        """Since the start: granted, stored, expired, cancelled, lost, late, raced, failed_REASON, quarantined,
        origin_fetches, origin_failures, elections, origins_opened, ignored."""
        return self._core.counters

    @property
    def leases_in_flight(self) -> int:
        """Leases granted and not ended."""
        return len(self._core.leases)

    def inspect(self) -> Core:
        """The whole state, for invariants and tests; not to be changed."""
        return self._core

    # --- timers ----------------------------------------------------------------------------------------------

    def _timer(self, timer: Timer) -> None:
        if timer.kind is TimerKind.SWARM:
            self._swarm_timer(timer.subject)
        else:
            node = self._core.book.nodes.get(timer.subject)
            if node is not None:
                self._node_timer(timer.kind, node, timer.other)

    def _swarm_timer(self, number: int) -> None:
        swarm = self._core.swarms.get(number)
        if swarm is None:
            return
        plan = self._core.plans[number]
        if plan.elected is not None and self._core.now < plan.elected_until:
            self._core.timers.set(plan.elected_until, TimerKind.SWARM, number)
        origin.review(self._core, swarm, plan)

    def _node_timer(self, kind: TimerKind, node: Node, other: int) -> None:
        core = self._core
        if kind is TimerKind.PAIR:
            source = core.book.nodes.get(other)
            if source is not None:
                core.book.make_up(node, source)
        elif kind is TimerKind.NODE_UP and node.blocked_up_until <= core.now:
            node.blocked_up_until = 0.0
        elif kind is TimerKind.NODE_DOWN and node.blocked_down_until <= core.now:
            node.blocked_down_until = 0.0
        if kind is TimerKind.NODE_DOWN and node.hungry_at is not None and node.hungry_at <= core.now:
            core.book.roaming |= node.bit
        core.book.refresh(node)
        core.wake(node)

    # --- nodes -----------------------------------------------------------------------------------------------

    def _peer_joined(self, event: contract.PeerJoined) -> None:
        core = self._core
        if event.peer in core.book.nodes:
            self._ignore("peer %d joined twice", event.peer)
            return
        settings = self.settings
        up = Link(max(0, min(event.upload_slots, settings.uploads_per_node_max)), event.upload_rate_bytes_s or None)
        # A node that wants something must be able to fetch it; one that uploads nothing is only a poor neighbour.
        slots = min(max(1, event.download_slots), settings.downloads_per_node_max)
        down = Link(slots, event.download_rate_bytes_s or None)
        core.book.join(event.peer, event.zone, up, down)

    def _peer_lost(self, event: contract.PeerLost) -> None:
        core = self._core
        node = core.book.nodes.get(event.peer)
        if node is None or event.peer == SEED:
            self._ignore("unknown peer %d lost", event.peer)
            return
        swarms = [member.swarm for member in node.members.values()]
        for lease in list(node.leases_in.values()):
            core.finish(lease, stored=False)
            core.counters["lost"] += 1
        for lease in list(node.leases_out.values()):
            core.cancel(lease, f"source {event.peer} lost: {event.reason}")
        for member in list(node.members.values()):
            member.swarm.leave(member)
        core.let_sleep(node)
        core.book.leave(node)
        for swarm in swarms:
            core.stories.tell(core.now, swarm.number, WHOLE, "peer %d lost: %s", event.peer, event.reason)
            outcomes.after_change(self._core, swarm, event.peer)

    # --- swarms ----------------------------------------------------------------------------------------------

    def _swarm_opened(self, event: contract.SwarmOpened) -> None:
        core = self._core
        if event.swarm in core.swarms:
            self._ignore("swarm %d opened twice", event.swarm)
            return
        layout = PieceLayout(event.size_bytes, event.piece_size_bytes)
        swarm = Swarm(event.swarm, layout, event.inline)
        core.swarms[event.swarm] = swarm
        core.stories.open(event.swarm)
        core.inline_swarms += event.inline
        core.largest_piece_bytes = max(core.largest_piece_bytes, event.piece_size_bytes)
        self._core.plans[event.swarm] = origin.OriginPlan(
            event.once_ready & swarm.full, event.recover_until, event.recover_peers
        )
        swarm.add_copies(swarm.join(core.book.nodes[SEED]), event.seed_held & swarm.full)
        if event.once_ready and event.recover_until > core.now:
            core.timers.set(event.recover_until, TimerKind.SWARM, event.swarm)

    def _swarm_voided(self, event: contract.SwarmVoided) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            outcomes.clear(self._core, swarm, "the blob did not match its digest")

    def _swarm_closed(self, event: contract.SwarmClosed) -> None:
        core = self._core
        swarm = self._swarm(event.swarm)
        if swarm is None:
            return
        outcomes.clear(self._core, swarm, "swarm closed")
        for member in list(swarm.members.values()):
            swarm.leave(member)
        del core.swarms[swarm.number]
        core.fetches -= core.plans.pop(swarm.number).fetch_id != 0
        core.stories.close(swarm.number)
        core.inline_swarms -= swarm.inline
        core.largest_piece_bytes = max((other.layout.piece_size_bytes for other in core.swarms.values()), default=0)

    def _recovery_peer_returned(self, event: contract.RecoveryPeerReturned) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            plan = self._core.plans[event.swarm]
            plan.recover_peers.pop(event.peer, None)
            origin.review(self._core, swarm, plan)

    def _peer_announced(self, event: contract.PeerAnnounced) -> None:
        core = self._core
        swarm = core.swarms.get(event.swarm)
        node = core.book.nodes.get(event.peer)
        if swarm is None or node is None or event.peer == SEED:
            self._ignore("peer %d announced swarm %d", event.peer, event.swarm)
            return
        member = swarm.members.get(event.peer) or swarm.join(node)
        held = event.held & swarm.full
        for piece, racing in list(member.leases.items()):
            if held >> piece & 1 or not event.wanted:
                for lease in list(racing):
                    core.cancel(lease, "held already" if event.wanted else "not wanted")
        outcomes.lose(core, member, member.have & ~held, "source no longer holds it")
        member.wanted = event.wanted
        swarm.add_copies(member, held)
        core.wake(node)
        what = "peer %d announced %d pieces, wanted %s"
        core.stories.tell(core.now, swarm.number, WHOLE, what, event.peer, held.bit_count(), event.wanted)
        outcomes.after_change(self._core, swarm, event.peer)

    def _peer_withdrew(self, event: contract.PeerWithdrew) -> None:
        core = self._core
        member = self._member(event.swarm, event.peer)
        if member is None or event.peer == SEED:
            return
        swarm = member.swarm
        member.wanted = False
        for lease in list(member.node.leases_in.values()):
            if lease.member is member:
                core.cancel(lease, "not wanted")
        outcomes.lose(core, member, member.have, "source withdrew")
        swarm.leave(member)
        outcomes.after_change(self._core, swarm, event.peer)

    # --- pieces ----------------------------------------------------------------------------------------------

    def _piece_stored(self, event: contract.PieceStored) -> None:
        core = self._core
        number, peer, piece, lease_id = event.swarm, event.peer, event.piece, event.lease_id
        swarm = core.swarms.get(number)
        member = None if swarm is None else swarm.members.get(peer)
        if swarm is None or member is None or not 0 <= piece < swarm.count:
            self._ignore("piece %d of swarm %d stored at %d", piece, number, peer)
            return
        bit = 1 << piece
        lease = core.leases.get(lease_id) if lease_id else None
        if lease is not None and (lease.member is not member or lease.piece != piece):
            self._ignore("lease %x is not for piece %d at %d", lease_id, piece, peer)
            lease = None
        if lease is None:
            core.counters["late"] += lease_id != 0
            for rival in list(member.leases.get(piece, ())):
                core.cancel(rival, "held already")
            swarm.add_copies(member, bit)
            core.wake(member.node)
        else:
            outcomes.delivered(core, lease, event.elapsed_s)
        if peer == SEED:
            self._seed_filled(swarm, piece, lease_id)
        else:
            if member.have == swarm.full:
                outcomes.after_change(core, swarm, peer)
            if not lease_id:
                plan = core.plans[number]
                if plan.elected == peer:
                    origin.headway(core, swarm, plan)
        core.stories.rings[number].add((core.now, piece, "stored at %d (lease %x)", peer, lease_id))

    def _seed_filled(self, swarm: Swarm, piece: int, lease_id: int) -> None:
        core, bit = self._core, 1 << piece
        swarm.evicted_by_seed &= ~bit
        if swarm.fetching & bit:
            swarm.fetching ^= bit
            if not lease_id:
                core.arrivals.arrived(core.now, swarm.length(piece))
                swarm.seed.node.up.hope(core.arrivals.rate(core.now))
                core.book.refresh_up(swarm.seed.node)
        core.wake(swarm.seed.node)
        if swarm.inline:
            core.wake_receivers(swarm.wanting)

    def _piece_evicted(self, event: contract.PieceEvicted) -> None:
        member = self._member(event.swarm, event.peer)
        if member is None:
            return
        core = self._core
        swarm = member.swarm
        gone = event.pieces & member.have
        if event.peer == SEED:
            swarm.evicted_by_seed |= gone
        outcomes.lose(core, member, gone, "source evicted it")
        core.wake(member.node)
        for piece in indices(gone):
            core.stories.tell(core.now, swarm.number, piece, "evicted at %d", event.peer)
        outcomes.after_change(core, swarm, event.peer)

    def _reader_moved(self, event: contract.ReaderMoved) -> None:
        member = self._member(event.swarm, event.peer)
        if member is None:
            return
        valid = event.piece is not None and 0 <= event.piece < member.swarm.count
        member.reader = event.piece if valid else None

    # --- failures --------------------------------------------------------------------------------------------

    def _fetch_failed(self, event: contract.FetchFailed) -> None:
        core = self._core
        lease = core.leases.get(event.lease_id)
        if lease is None:
            self._ignore("lease %x failed: %s", event.lease_id, event.reason.value)
            return
        core.counters[f"failed_{event.reason.value}"] += 1
        core.stories.tell(
            core.now, lease.member.swarm.number, lease.piece, "lease %x failed: %s", lease.number, event.reason.value
        )
        outcomes.failed(self._core, lease, event.reason)

    # --- the origin ------------------------------------------------------------------------------------------

    def _origin_ended(self, event: contract.OriginEnded) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is None:
            return
        plan = self._core.plans[event.swarm]
        if plan.fetch_id != event.fetch_id or not event.fetch_id:
            self._ignore("fetch %x ended", event.fetch_id)
            return
        origin.ended(self._core, swarm, plan, event.ok)
        origin.review(self._core, swarm, plan)

    def _origin_tried(self, event: contract.OriginTried) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            origin.tried(self._core, swarm, self._core.plans[event.swarm], event.peer, event.ok)

    def _origin_headway(self, event: contract.OriginHeadway) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None and self._core.plans[event.swarm].elected == event.peer:
            origin.headway(self._core, swarm, self._core.plans[event.swarm])

    # --- look-ups --------------------------------------------------------------------------------------------

    def _swarm(self, number: int) -> Swarm | None:
        swarm = self._core.swarms.get(number)
        if swarm is None:
            self._ignore("unknown swarm %d", number)
        return swarm

    def _member(self, number: int, peer: int) -> Member | None:
        swarm = self._core.swarms.get(number)
        member = None if swarm is None else swarm.members.get(peer)
        if member is None:
            self._ignore("peer %d is not in swarm %d", peer, number)
        return member

    def _ignore(self, text: str, *values: object) -> None:
        self._core.counters["ignored"] += 1
        self._core.stories.tell(self._core.now, NOWHERE, WHOLE, text, *values)
