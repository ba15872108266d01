"""Runs the scheduler: events in, commands out, batched per turn of the loop; and carries each command out.

The one writer of the scheduler. It opens no swarm and reads no message (supernode.control.message_handler), keeps no
account of what members were told (supernode.control.notifier), moves no byte (supernode.seed), and everything happens
on the event loop without a wait in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from peer.transport.base import PieceSource
from proto.ids import peer_name
from proto.pieces import runs
from proto.wire.messages import Cancel, Grant, InlineBlob
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import PeerId
    from proto.machine import Machine
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.swarm_registry import OpenSwarm, SwarmRegistry
    from supernode.metrics import Metrics
    from supernode.seed import Seed
    from supernode.session.session import PeerSession
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# Events per turn; more wait for the next one, so that sockets are served in between.
EVENTS_PER_TURN_MAX: Final = 512
# Leases a peer may report on: far more than it can run at a time.
LEASES_PER_PEER_MAX: Final = 1024
# A tiny blob travels in control messages while that takes at most this much of the uplink's time.
INLINE_UPLINK_S: Final = 0.05
INLINE_BYTES_MAX: Final = 64 * 1024


class UplinkRate(Protocol):
    """The supernode's uplink now, bytes/s."""

    def __call__(self) -> float: ...


class Driver:
    """See the module. `on_fatal` is called once when the scheduler breaks: that is our own bug.

    `epoch` is the scheduler's; peers know leases without it.
    """

    def __init__(
        self,
        *,
        scheduler: Machine[contract.Event, contract.Command],
        swarms: SwarmRegistry,
        nodes: NodeRegistry,
        notifier: Notifier,
        seed: Seed,
        state: StateThread,
        metrics: Metrics,
        epoch: int,
        uplink_rate: UplinkRate,
        on_fatal: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.swarms = swarms
        self.nodes = nodes
        self.notifier = notifier
        self.seed = seed
        self.clock = clock
        self._scheduler = scheduler
        self._state = state
        self._metrics = metrics
        self._epoch = epoch
        self._uplink_rate = uplink_rate
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._inbox: list[contract.Event] = []
        self._armed = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        # Swarm to the pieces whose hashes became known in this turn.
        self._fresh_hashes: dict[OpenSwarm, int] = {}
        # Leases that the seed itself runs.
        self._seed_leases: dict[int, tuple[int, int]] = {}

    # --- the machine -------------------------------------------------------------------------------------------

    def post(self, event: contract.Event) -> None:
        """Queue an event for this turn of the loop."""
        self._inbox.append(event)
        self._arm()

    def close(self) -> None:
        """No event is handled any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def fail(self, error: BaseException | None) -> None:
        """Something that cannot happen did: stop rather than go on with a broken picture."""
        logger.critical("supernode_failed: a bug of ours, the process ends", exc_info=error)
        self.close()
        self._on_fatal()

    def _arm(self) -> None:
        if not self._armed and not self._closed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._armed = False
        if self._closed:
            return
        events = self._inbox[:EVENTS_PER_TURN_MAX]
        del self._inbox[:EVENTS_PER_TURN_MAX]
        try:
            now = self.clock()
            for event in events:
                for command in self._scheduler.handle(event, now):
                    self._carry_out(command)
            self._save_hashes()
            self._set_timer(now)
        except Exception as error:
            self.fail(error)
            return
        if self._inbox:
            self._arm()

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._scheduler.next_wakeup()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.post(contract.Wakeup())

    def _carry_out(self, command: contract.Command) -> None:
        match command:
            case contract.GrantLease():
                self._grant(command)
            case contract.CancelLease():
                self._cancel(command)
            case contract.FetchFromOrigin():
                self._fetch_from_origin(command)
            case contract.TryOrigin():
                self._try_origin(command)
            case contract.OpenOrigin():
                swarm = self.swarms.numbered(command.swarm)
                if swarm is not None:
                    swarm.elected = None
                    self._set_origin_state(swarm, "open")
            case contract.QuarantinePeer():
                self.quarantine(command.peer, command.reason)

    # --- leases ------------------------------------------------------------------------------------------------

    def _grant(self, grant: contract.GrantLease) -> None:
        self._metrics.leases.labels("granted").inc()
        swarm = self.swarms.numbered(grant.swarm)
        if swarm is None:
            return
        if grant.receiver == SEED:
            self._grant_to_seed(swarm, grant)
            return
        session = self.nodes.session(grant.receiver)
        member = swarm.members.get(grant.receiver)
        if session is None or member is None:
            return  # its PeerLost or PeerWithdrew is in the inbox
        if grant.source != SEED:
            source = self.nodes.session(grant.source)
            if source is None or self.nodes.is_quarantined(source.info.peer):
                reason = FailReason.CONNECTION if source is None else FailReason.CORRUPT
                self.post(contract.FetchFailed(grant.lease_id, reason))
                return
        lease = self._remember_lease(session, grant)
        if grant.inline and swarm.content is not None and self.fits_inline(swarm, swarm.wanted_by):
            session.send(InlineBlob(lease, swarm.number, swarm.content))
            return
        if not self._is_told(swarm, grant):
            self.notifier.send_hashes(session, swarm, member, 1 << grant.piece)
        self.notifier.introduce(session, grant.source)
        expires_ms = max(1, int(grant.expires_in_s * 1000))
        behind = _told_lease(grant.behind)
        session.send(Grant(lease, swarm.number, grant.piece, grant.source, expires_ms, grant.ahead, behind))

    def _is_told(self, swarm: OpenSwarm, grant: contract.GrantLease) -> bool:
        """Whether the source tells the piece's hash with it: so hashes cost nothing of our own link."""
        source = swarm.members.get(grant.source)
        return grant.source == SEED or (source is not None and source.tells >> grant.piece & 1 == 1)

    def _grant_to_seed(self, swarm: OpenSwarm, grant: contract.GrantLease) -> None:
        source = self.nodes.session(grant.source)
        piece_hash = swarm.hashes.hash_of(grant.piece)
        if source is None or piece_hash is None or self.nodes.is_quarantined(source.info.peer):
            reason = FailReason.CONNECTION if source is None else FailReason.CORRUPT
            self.post(contract.FetchFailed(grant.lease_id, reason))
            return
        self._seed_leases[grant.lease_id] = (swarm.number, grant.piece)
        self.seed.fetch_from_peer(
            grant.lease_id,
            swarm.digest,
            swarm.layout,
            grant.piece,
            piece_hash,
            PieceSource(peer_name(source.info.peer), source.info.address),
            grant.expires_in_s,
        )

    def lease_id(self, told: int) -> int:
        """The scheduler's id of a lease, from what peers know it by."""
        return self._epoch << contract.ID_BITS | told

    def _remember_lease(self, session: PeerSession, grant: contract.GrantLease) -> int:
        while len(session.leases) >= LEASES_PER_PEER_MAX:
            del session.leases[next(iter(session.leases))]
        told = _told_lease(grant.lease_id)
        session.leases[told] = (grant.swarm, grant.piece, grant.source)
        return told

    def _cancel(self, command: contract.CancelLease) -> None:
        outcome = "expired" if "expir" in command.reason else "cancelled"
        self._metrics.leases.labels(outcome).inc()
        if command.receiver == SEED:
            self.seed.cancel_fetch(command.lease_id)
            return
        session = self.nodes.session(command.receiver)
        told = _told_lease(command.lease_id)
        if session is not None and session.leases.pop(told, None) is not None:
            session.send(Cancel(told))

    def fits_inline(self, swarm: OpenSwarm, waiting: int) -> bool:
        """Whether sending the blob to so many peers inside messages stays within its share of the uplink."""
        size_bytes = swarm.layout.size_bytes
        return size_bytes <= INLINE_BYTES_MAX and waiting * size_bytes <= self._uplink_rate() * INLINE_UPLINK_S

    # --- the origin --------------------------------------------------------------------------------------------

    def _fetch_from_origin(self, command: contract.FetchFromOrigin) -> None:
        swarm = self.swarms.numbered(command.swarm)
        if swarm is None:
            return
        swarm.fetches.add(command.fetch_id)
        swarm.elected = None
        self._set_origin_state(swarm, "fetching")
        self.seed.fetch_from_origin(
            command.fetch_id,
            swarm.number,
            swarm.digest,
            swarm.layout,
            tuple(swarm.sources),
            command.pieces,
            read_back=swarm.inline,
        )

    def _try_origin(self, command: contract.TryOrigin) -> None:
        swarm = self.swarms.numbered(command.swarm)
        if swarm is not None:
            swarm.elected = command.peer
            self._set_origin_state(swarm, "unreachable")

    def _set_origin_state(self, swarm: OpenSwarm, state: str) -> None:
        swarm.origin_state = state
        if state == "fetching":
            return  # told with the frames that leave anyway, see Notifier.refresh()
        self.notifier.send_origin_status(swarm)

    # --- what the seed reports (on the loop) ---------------------------------------------------------------------

    def seed_lease_ended(self, lease_id: int, reason: str, elapsed_s: float, stored_bytes: int) -> OpenSwarm | None:
        """A transfer from a peer to the seed ended, `reason` empty on success. Returns the swarm that got a piece."""
        number, piece = self._seed_leases.pop(lease_id)
        swarm = self.swarms.numbered(number)
        if reason:
            self._metrics.leases.labels("failed").inc()
            self.post(contract.FetchFailed(lease_id, FailReason(reason)))
            return None
        self._metrics.leases.labels("stored").inc()
        self._metrics.bytes_received.labels("peer").inc(stored_bytes)
        if swarm is not None:
            swarm.seed_held |= 1 << piece
            swarm.moved_s = self.clock()
            self.post(contract.PieceStored(number, SEED, piece, lease_id, elapsed_s))
        return swarm

    def headway(self, swarm: OpenSwarm, node: int) -> None:
        """An elected peer stored a piece from the origin whose hash is its own: it is getting on."""
        if swarm.elected == node:
            self.post(contract.OriginHeadway(swarm.number, node))

    def learn_hash(self, swarm: OpenSwarm, piece: int, piece_hash: bytes) -> None:
        """A piece's hash became known: pass on who was waiting for it, remember it."""
        if swarm.hashes.known >> piece & 1:
            return
        swarm.hashes.learn(piece, piece_hash)
        self._fresh_hashes[swarm] = self._fresh_hashes.get(swarm, 0) | 1 << piece
        for node, member in swarm.members.items():
            if member.unproven >> piece & 1:
                member.unproven ^= 1 << piece
                member.held |= 1 << piece
                self.post(contract.PieceStored(swarm.number, node, piece))

    def _save_hashes(self) -> None:
        for swarm, mask in self._fresh_hashes.items():
            added = [(first, swarm.hashes.run(first, last)) for first, last in runs(mask & swarm.hashes.known)]
            if added:
                self._state.add_hashes(swarm.digest, added)
        self._fresh_hashes.clear()

    # --- whom to trust no more -----------------------------------------------------------------------------------

    def quarantine(self, node: int, reason: str) -> None:
        """Name this peer to nobody any more, in this session or a later one."""
        session = self.nodes.session(node)
        if session is None:
            return
        logger.warning("peer_quarantined peer=%s reason=%s", session.info.peer.hex()[:8], reason)
        self.nodes.quarantine(session.info.peer)
        for number in session.announced.values():
            swarm = self.swarms.numbered(number)
            if swarm is not None:
                swarm.mistrust(node)

    def quarantine_peer(self, peer: PeerId, reason: str) -> None:
        """The same by identity, connected or not."""
        self.nodes.quarantine(peer)
        node = self.nodes.number_of(peer)
        if node is not None:
            self.quarantine(node, reason)


def _told_lease(lease_id: int) -> int:
    """What peers know a lease by: a session is of one epoch, whose number would be six bytes in each message."""
    return lease_id & (1 << contract.ID_BITS) - 1
