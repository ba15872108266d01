"""The scheduler: a pure state machine that decides which node fetches which piece from where.

Here events are taken in and handed to the rules (docs/scheduling.md); what to grant is then found by matching. Every
lease ends once: stored, failed, cancelled or expired here. Nothing an event says is trusted to fit: what names an
unknown swarm, peer, lease or piece is ignored and told in the story. No I/O, no clock, no global randomness; events
come in order with a `now` that never decreases.

    MISSING --GrantLease--> LEASED --PieceStored--> HELD
       ^                      |                       |
       +---FetchFailed, expiry, CancelLease-----------+---PieceEvicted, PeerAnnounced, SwarmVoided
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from proto.pieces import PieceLayout, indices
from supernode.scheduler import contract, copies
from supernode.scheduler.contract import SEED, Command, Event
from supernode.scheduler.granting import grant
from supernode.scheduler.matching import match
from supernode.scheduler.records import Lease, Link, Member, OriginPlan, Swarm
from supernode.scheduler.rules import (
    admission,
    faults,
    first_copies,
    holdings,
    just_in_time,
    late_transfers,
    link_rates,
    origin_fetches,
    preheats,
    rack_copies,
)
from supernode.scheduler.settings import PACED_MIN, SchedulerSettings
from supernode.scheduler.state import State
from supernode.scheduler.story import NOWHERE, WHOLE
from supernode.scheduler.timers import Timer, TimerKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supernode.scheduler.records import Node


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
        self._state = State(
            rng,
            self.settings,
            epoch,
            seed_upload_slots=seed_upload_slots,
            seed_download_slots=seed_download_slots,
            seed_upload_rate=seed_upload_rate_bytes_s,
        )
        self._joined(self._state.seed)
        self._handlers: dict[type, Callable[..., None]] = {
            contract.PieceStored: self._piece_stored,
            contract.FetchFailed: self._fetch_failed,
            contract.PeerJoined: self._peer_joined,
            contract.PeerLost: self._peer_lost,
            contract.PeerQuarantined: self._peer_quarantined,
            contract.QuarantineEnded: self._quarantine_ended,
            contract.SwarmOpened: self._swarm_opened,
            contract.RecoveryPeerReturned: self._recovery_peer_returned,
            contract.PeerAnnounced: self._peer_announced,
            contract.PeerOffers: self._peer_offers,
            contract.PeerWithdrew: self._peer_withdrew,
            contract.PieceEvicted: self._piece_evicted,
            contract.ReaderMoved: self._reader_moved,
            contract.PiecesWanted: self._pieces_wanted,
            contract.OriginEnded: self._origin_ended,
            contract.OriginTried: self._origin_tried,
            contract.OriginHeadway: self._origin_headway,
            contract.SwarmVoided: self._swarm_voided,
            contract.SwarmClosed: self._swarm_closed,
            contract.PreheatRateSet: self._preheat_rate_set,
        }

    # --- the contract ----------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; returns the commands it gives rise to. Never raises for what an event says."""
        state = self._state
        state.now = now
        state.pulling = state.pull_fetches = -1
        # The event before the timers: a report that came in the last moment is not late.
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        timers = state.timers
        while (due := timers.pop_due(now)) is not None:
            if isinstance(due, Lease):
                if late_transfers.timer_due(state, due):
                    faults.expired(state, due)
            else:
                self._timer(due)
        if state.up.woken or state.down.woken:
            for member, piece, source in match(state):
                grant(state, member, piece, source)
        timers.sweep(len(state.leases))
        commands, state.commands = state.commands, []
        return commands

    def next_wakeup(self) -> float | None:
        """When Wakeup must be handled at the latest; None when nothing is pending."""
        return self._state.timers.next_due()

    def story(self, swarm: int, piece: int) -> list[str]:
        """Recent happenings of one piece, oldest first."""
        return self._state.stories.of(swarm, piece)

    def copies(self, swarm: int) -> list[int]:
        """From how many nodes each piece can be had, the seed included; empty for a swarm that is not known."""
        known = self._state.swarms.get(swarm)
        return [] if known is None else [holders.bit_count() for holders in known.holders]

    def link_speeds(self, peer: int) -> tuple[float, float]:
        """What a node's uplink and downlink carry as far as known, bytes/s; 0.0 where nothing is."""
        node = self._state.nodes.get(peer)
        return (0.0, 0.0) if node is None else (node.up.speed(), node.down.speed())

    def ignored(self) -> list[str]:
        """Recent events that named what the machine does not know."""
        return self._state.stories.nowhere()

    @property
    def counters(self) -> Mapping[str, int]:
        """Since the start, by the names in state.COUNTED."""
        return self._state.counters

    def pace(self) -> contract.Pace | None:
        """As measured so far; None until enough transfers told."""
        state = self._state
        if state.paced < PACED_MIN:
            return None
        return contract.Pace(state.pace_rate, state.reaction_s)

    @property
    def leases_in_flight(self) -> int:
        """Leases granted and not ended."""
        return len(self._state.leases)

    def inspect(self) -> State:
        """The whole state, for invariants and tests; not to be changed."""
        return self._state

    # --- timers ----------------------------------------------------------------------------------------------

    def _timer(self, timer: Timer) -> None:
        state = self._state
        if timer.kind is TimerKind.SWARM:
            swarm = state.swarms.get(timer.subject)
            if swarm is not None:
                origin_fetches.timer_due(state, swarm)
            return
        node = state.nodes.get(timer.subject)
        if node is None:
            return
        if timer.kind is TimerKind.PAIR:
            source = state.nodes.get(timer.other)
            if source is not None:
                state.unblock(node, source)
        rack_copies.end_wait(state, node)
        preheats.end_rest(state, node)
        for link in (node.up, node.down):
            if link.blocked_until <= state.now:
                link.blocked_until = 0.0
            admission.refresh(link)
            link.wake()

    # --- nodes -----------------------------------------------------------------------------------------------

    def _peer_joined(self, event: contract.PeerJoined) -> None:
        state, settings = self._state, self.settings
        if event.peer in state.nodes:
            self._ignore("peer %d joined twice", event.peer)
            return
        slots_up = max(0, min(event.upload_slots, settings.uploads_per_node_max))
        # A node that wants something must be able to fetch it; one that uploads nothing is only a poor neighbour.
        slots_down = min(max(1, event.download_slots), settings.downloads_per_node_max)
        up = Link(state.up, slots_up, event.upload_rate_bytes_s or None)
        down = Link(state.down, slots_down, event.download_rate_bytes_s or None)
        self._joined(state.join(event.peer, event.zone, up, down))

    def _joined(self, node: Node) -> None:
        for link in (node.up, node.down):
            link.direction.list_by_rate(link)
            admission.refresh(link)

    def _peer_lost(self, event: contract.PeerLost) -> None:
        state = self._state
        node = state.nodes.get(event.peer)
        if node is None or event.peer == SEED:
            self._ignore("unknown peer %d lost", event.peer)
            return
        swarms = [member.swarm for member in node.members.values()]
        for lease in list(node.down.leases.values()):
            just_in_time.end(state, lease, stored=False)
            state.counters["lost"] += 1
        for lease in list(node.up.leases.values()):
            just_in_time.cancel(state, lease, f"source {event.peer} lost: {event.reason}")
        for member in list(node.members.values()):
            state.plans[member.swarm.number].offers.pop(event.peer, None)
            copies.leave(member)
        state.leave(node)
        for swarm in swarms:
            state.record(swarm.number, WHOLE, "peer %d lost: %s", event.peer, event.reason)
            holdings.after_change(state, swarm, event.peer)

    def _peer_quarantined(self, event: contract.PeerQuarantined) -> None:
        node = self._state.nodes.get(event.peer)
        if node is not None and event.peer != SEED and not node.quarantined:
            faults.quarantine(self._state, node, event.reason)

    def _quarantine_ended(self, event: contract.QuarantineEnded) -> None:
        node = self._state.nodes.get(event.peer)
        if node is not None and node.quarantined:
            faults.end_quarantine(self._state, node)

    # --- swarms ----------------------------------------------------------------------------------------------

    def _swarm_opened(self, event: contract.SwarmOpened) -> None:
        state = self._state
        if event.swarm in state.swarms:
            self._ignore("swarm %d opened twice", event.swarm)
            return
        layout = PieceLayout(event.size_bytes, event.piece_size_bytes)
        swarm = Swarm(event.swarm, layout, event.inline)
        state.swarms[event.swarm] = swarm
        state.stories.open(event.swarm)
        state.inline_swarms += event.inline
        state.largest_piece_bytes = max(state.largest_piece_bytes, event.piece_size_bytes)
        state.plans[event.swarm] = OriginPlan(event.recover_until, event.recover_peers)
        copies.add(copies.join(swarm, state.seed), event.seed_held & swarm.full)
        if event.recover_peers and event.recover_until > state.now:
            text = "after a restart with %d pieces once ready: %d peers are waited for"
            state.record(swarm.number, WHOLE, text, event.once_ready.bit_count(), len(event.recover_peers))
            state.timers.set(event.recover_until, TimerKind.SWARM, event.swarm)

    def _swarm_voided(self, event: contract.SwarmVoided) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            holdings.clear(self._state, swarm, "the blob did not match its digest")

    def _swarm_closed(self, event: contract.SwarmClosed) -> None:
        state = self._state
        swarm = self._swarm(event.swarm)
        if swarm is None:
            return
        holdings.clear(state, swarm, "swarm closed")
        for member in list(swarm.members.values()):
            copies.leave(member)
        del state.swarms[swarm.number]
        state.preheats.pop(swarm.number, None)
        state.fetches -= state.plans.pop(swarm.number).fetch_id != 0
        state.stories.close(swarm.number)
        state.inline_swarms -= swarm.inline
        state.largest_piece_bytes = max((other.layout.piece_size_bytes for other in state.swarms.values()), default=0)
        origin_fetches.review_preheats(state)

    def _preheat_rate_set(self, event: contract.PreheatRateSet) -> None:
        preheats.set_rate(self._state, max(0.0, event.rate_bytes_s))

    def _recovery_peer_returned(self, event: contract.RecoveryPeerReturned) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            self._state.plans[event.swarm].recover_peers.pop(event.peer, None)
            origin_fetches.review(self._state, swarm)

    def _peer_announced(self, event: contract.PeerAnnounced) -> None:
        state = self._state
        swarm = state.swarms.get(event.swarm)
        node = state.nodes.get(event.peer)
        if swarm is None or node is None or event.peer == SEED:
            self._ignore("peer %d announced swarm %d", event.peer, event.swarm)
            return
        member = swarm.members.get(event.peer) or copies.join(swarm, node)
        held = event.held & swarm.full
        for piece, racing in list(member.leases.items()):
            if held >> piece & 1 or not event.wanted:
                for lease in list(racing):
                    just_in_time.cancel(state, lease, "held already" if event.wanted else "not wanted")
        holdings.lose(state, member, member.have & ~held, "source no longer holds it")
        copies.want(member, wanted=event.wanted, background=event.background)
        swarm.given_up &= ~node.bit
        copies.ask(member, member.asked if event.wanted else 0, ranges=event.ranges)
        copies.add(member, held)
        node.wake()
        text = "peer %d announced %d pieces, wanted %s, in the background %s"
        state.record(swarm.number, WHOLE, text, event.peer, held.bit_count(), event.wanted, event.background)
        holdings.after_change(state, swarm, event.peer)

    def _peer_offers(self, event: contract.PeerOffers) -> None:
        # Before it is known what else it has, and what it wants.
        swarm = self._swarm(event.swarm)
        if swarm is not None and event.peer in self._state.nodes and event.peer != SEED:
            origin_fetches.offered(self._state, swarm, event)

    def _peer_withdrew(self, event: contract.PeerWithdrew) -> None:
        state = self._state
        member = self._member(event.swarm, event.peer)
        if member is None or event.peer == SEED:
            return
        swarm = member.swarm
        copies.want(member, wanted=False)
        copies.ask(member, 0, ranges=False)
        for lease in list(member.node.down.leases.values()):
            if lease.member is member:
                just_in_time.cancel(state, lease, "not wanted")
        holdings.lose(state, member, member.have, "source withdrew")
        state.plans[swarm.number].offers.pop(event.peer, None)
        copies.leave(member)
        holdings.after_change(state, swarm, event.peer)

    # --- pieces ----------------------------------------------------------------------------------------------

    def _piece_stored(self, event: contract.PieceStored) -> None:
        state = self._state
        number, peer, piece, lease_id = event.swarm, event.peer, event.piece, event.lease_id
        swarm = state.swarms.get(number)
        member = None if swarm is None else swarm.members.get(peer)
        if swarm is None or member is None or not 0 <= piece < swarm.count:
            self._ignore("piece %d of swarm %d stored at %d", piece, number, peer)
            return
        lease = state.leases.get(lease_id) if lease_id else None
        if lease is not None and (lease.member is not member or lease.piece != piece):
            self._ignore("lease %x is not for piece %d at %d", lease_id, piece, peer)
            lease = None
        if event.unvouched and not swarm.unvouched >> piece & 1:
            swarm.unvouched |= 1 << piece
            copies.refresh_need(swarm.seed)
        if lease is None:
            state.counters["late"] += lease_id != 0
            self._stored_otherwise(member, piece)
        else:
            self._delivered(lease, event.elapsed_s)
        if peer == SEED:
            self._seed_filled(swarm, piece, lease_id)
        else:
            if member.have == swarm.full or (member.ranges and not member.need):
                holdings.after_change(state, swarm, peer)
            if not lease_id:
                origin_fetches.headway(state, swarm, peer)
        state.stories.of_swarms[number].append((state.now, piece, "stored at %d (lease %x)", peer, lease_id))

    def _delivered(self, lease: Lease, elapsed_s: float) -> None:
        """A lease ended with its piece."""
        state = self._state
        if not lease.inline:
            link_rates.learn_from(state, lease, elapsed_s)
            late_transfers.review_stalled(state, lease)
        faults.succeeded(state, lease)
        state.counters["stored"] += 1
        late_transfers.end_race(state, lease)
        # Brings the masks of nodes with room up to date, too, after what was learnt.
        just_in_time.end(state, lease, stored=True)

    def _stored_otherwise(self, member: Member, piece: int) -> None:
        """A piece came without a lease that is known: from the origin, from upstream, or too late."""
        for rival in list(member.leases.get(piece, ())):
            just_in_time.cancel(self._state, rival, "held already")
        copies.add(member, 1 << piece)
        member.node.wake()

    def _seed_filled(self, swarm: Swarm, piece: int, lease_id: int) -> None:
        state, bit = self._state, 1 << piece
        swarm.evicted_by_seed &= ~bit
        swarm.unvouched &= ~bit
        if swarm.fetching & bit:
            swarm.fetching ^= bit
            if not lease_id:
                first_copies.piece_from_origin(state, swarm.layout.length(piece))
        state.seed.wake()
        if swarm.inline:
            state.wake_receivers(swarm.wanting)

    def _piece_evicted(self, event: contract.PieceEvicted) -> None:
        member = self._member(event.swarm, event.peer)
        if member is None:
            return
        state = self._state
        swarm = member.swarm
        gone = event.pieces & member.have
        if event.peer == SEED:
            swarm.evicted_by_seed |= gone
        holdings.lose(state, member, gone, "source evicted it")
        member.node.wake()
        for piece in indices(gone):
            state.record(swarm.number, piece, "evicted at %d", event.peer)
        holdings.after_change(state, swarm, event.peer)

    def _reader_moved(self, event: contract.ReaderMoved) -> None:
        member = self._member(event.swarm, event.peer)
        if member is None:
            return
        valid = event.piece is not None and 0 <= event.piece < member.swarm.count
        member.reader = event.piece if valid else None

    def _pieces_wanted(self, event: contract.PiecesWanted) -> None:
        member = self._member(event.swarm, event.peer)
        if member is None or event.peer == SEED:
            return
        swarm = member.swarm
        copies.ask(member, event.pieces & swarm.full, ranges=member.ranges)
        text = "peer %d asks for %d pieces by ranges"
        self._state.record(swarm.number, WHOLE, text, event.peer, member.asked.bit_count())
        member.node.wake()
        holdings.after_change(self._state, swarm, event.peer)

    def _fetch_failed(self, event: contract.FetchFailed) -> None:
        state = self._state
        lease = state.leases.get(event.lease_id)
        if lease is None:
            self._ignore("lease %x failed: %s", event.lease_id, event.reason.value)
            return
        state.counters[f"failed_{event.reason.value}"] += 1
        text = "lease %x failed: %s"
        state.record(lease.member.swarm.number, lease.piece, text, lease.number, event.reason.value)
        faults.failed(state, lease, event.reason)

    # --- the origin ------------------------------------------------------------------------------------------

    def _origin_ended(self, event: contract.OriginEnded) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is None:
            return
        if self._state.plans[event.swarm].fetch_id != event.fetch_id or not event.fetch_id:
            self._ignore("fetch %x ended", event.fetch_id)
            return
        origin_fetches.ended(self._state, swarm, event.ok, event.retry_after_s)

    def _origin_tried(self, event: contract.OriginTried) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            origin_fetches.tried(self._state, swarm, event.peer, event.ok, event.retry_after_s)

    def _origin_headway(self, event: contract.OriginHeadway) -> None:
        swarm = self._swarm(event.swarm)
        if swarm is not None:
            origin_fetches.headway(self._state, swarm, event.peer)

    # --- look-ups --------------------------------------------------------------------------------------------

    def _swarm(self, number: int) -> Swarm | None:
        swarm = self._state.swarms.get(number)
        if swarm is None:
            self._ignore("unknown swarm %d", number)
        return swarm

    def _member(self, number: int, peer: int) -> Member | None:
        swarm = self._state.swarms.get(number)
        member = None if swarm is None else swarm.members.get(peer)
        if member is None:
            self._ignore("peer %d is not in swarm %d", peer, number)
        return member

    def _ignore(self, text: str, *values: object) -> None:
        self._state.counters["ignored"] += 1
        self._state.record(NOWHERE, WHOLE, text, *values)
