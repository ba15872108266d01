"""A cold swarm in virtual time, for `layercast-bench scheduler` and the scheduler's own tests: it keeps the scheduler
busy as a real one would.

Equal links for nodes and supernode; a transfer runs at min(uplink / its uploads, downlink / its downloads).
No TCP, no churn, no slots enforced: what the simulator is for. It carries out commands and takes no decision.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from proto.errors import LocalError
from proto.pieces import MIB, first_missing, indices
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from proto.machine import Machine

RATE_BYTES_S: Final = 125e6
PIECE_BYTES: Final = 4 * MIB
CONTROL_DELAY_S: Final = 0.0005
ZONE_NODES: Final = 50
SLOTS: Final = 8
# The supernode's loop takes all reports that came within this time in one turn.
TURN_S: Final = 0.0002
# Every so many nodes have a client that reads in order.
READER_EVERY: Final = 4

_SWARM: Final = 1


# Takes all events of one turn of the loop and the time: every command that they give rise to, in order.
Turn = Callable[[list[contract.Event], float], list[contract.Command]]


def handle_all(
    machine: Machine[contract.Event, contract.Command], events: list[contract.Event], now: float
) -> list[contract.Command]:
    """One turn of the loop."""
    commands: list[contract.Command] = []
    for event in events:
        commands += machine.handle(event, now)
    return commands


class Transfer:
    """A lease that is being carried out."""

    __slots__ = ("began_s", "lease", "left_bytes", "rate_bytes_s", "seen_s", "version")

    def __init__(self, lease: contract.GrantLease) -> None:
        self.lease = lease
        self.began_s = 0.0
        self.left_bytes = float(PIECE_BYTES)
        self.seen_s = 0.0
        self.rate_bytes_s = 0.0
        # Counts changes of rate: an end predicted before the last one is void.
        self.version = 0


class ColdSwarm:
    """`peers` nodes, which want all of `pieces` pieces from time 0 on, and a supernode that has nothing yet."""

    def __init__(
        self,
        machine: Machine[contract.Event, contract.Command],
        peers: int,
        pieces: int,
        *,
        turn: Turn | None = None,
        origin_bytes_s: float | None = RATE_BYTES_S,
        declared: bool = False,
        racks: int = 0,
    ) -> None:
        """`turn` is how the machine is handed its events, if not by handle_all(). `origin_bytes_s` None: the supernode
        has the blob already. `declared`: nodes tell their links' rates; else the scheduler learns them. `racks`: nodes
        are in so many, else in zones without racks, for a rack takes each piece in once, which this model's links give
        it nothing for.
        """
        self.now = 0.0
        self.delivered = 0
        # When a node last had a new piece.
        self.delivered_at = 0.0
        self._machine = machine
        self._handle = turn or partial(handle_all, machine)
        self._peers = peers
        self._pieces = pieces
        self._origin_bytes_s = origin_bytes_s
        self._declared_bytes_s = RATE_BYTES_S if declared else None
        self._racks = racks
        # Leases whose transfers began, in order.
        self.begun: list[contract.GrantLease] = []
        self._inbox: list[contract.Event] = []
        # (when, order, action, its argument)
        self._queue: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = 0
        self._running: dict[int, Transfer] = {}
        self._uploads: list[dict[int, Transfer]] = [{} for _ in range(peers + 1)]
        self._downloads: list[dict[int, Transfer]] = [{} for _ in range(peers + 1)]
        # Of each source: leases ahead that wait until one of its transfers has ended.
        self._ahead: list[deque[Transfer]] = [deque() for _ in range(peers + 1)]
        self._held = [0] * (peers + 1)
        self._reader = [0] * (peers + 1)

    @property
    def bound_s(self) -> float:
        """The piece bound, with the hop from the origin, whose link is as fast as all others, if there is one."""
        hops = math.floor(math.log2(self._peers)) + (self._origin_bytes_s is not None)
        return (self._pieces + hops) * PIECE_BYTES / RATE_BYTES_S

    def zone(self, peer: int) -> str:
        """Where the node is."""
        return f"r/z/{peer % self._racks}" if self._racks else f"r/z{peer // ZONE_NODES}"

    def open(self) -> None:
        """Everybody joins and wants the blob."""
        for peer in range(1, self._peers + 1):
            joined = contract.PeerJoined(
                peer, self.zone(peer), SLOTS, SLOTS, self._declared_bytes_s, self._declared_bytes_s
            )
            self._inbox.append(joined)
        held = (1 << self._pieces) - 1 if self._origin_bytes_s is None else 0
        self._inbox.append(contract.SwarmOpened(_SWARM, self._pieces * PIECE_BYTES, PIECE_BYTES, seed_held=held))
        for peer in range(1, self._peers + 1):
            self._inbox.append(contract.PeerAnnounced(_SWARM, peer, 0, True))
            if peer % READER_EVERY == 0:
                self._inbox.append(contract.ReaderMoved(_SWARM, peer, 0))
        self._hand_over()

    def run(self, deliveries: int) -> None:
        """Go on until nodes have this many pieces together. Raises LocalError if nothing happens any more."""
        while self.delivered < deliveries:
            self._turn()

    def _turn(self) -> None:
        wakeup = self._machine.next_wakeup()
        queue = self._queue
        due = min((at for at in (wakeup, queue[0][0] if queue else None) if at is not None), default=None)
        if due is None:
            raise LocalError(f"the swarm stands still after {self.delivered} deliveries: a fault of the scheduler")
        turn_at = max(self.now, due + TURN_S)
        while queue and queue[0][0] <= turn_at:
            self.now, _, action, argument = heapq.heappop(queue)
            action(argument)
        self.now = turn_at
        if wakeup is not None and wakeup <= turn_at:
            self._inbox.append(contract.Wakeup())
        if self._inbox:
            self._hand_over()

    def _hand_over(self) -> None:
        events, self._inbox = self._inbox, []
        for command in self._handle(events, self.now):
            if isinstance(command, contract.GrantLease):
                self._at(self.now + CONTROL_DELAY_S, self._granted, command)
            elif isinstance(command, contract.CancelLease):
                self._at(self.now + CONTROL_DELAY_S, self._cancelled, command)
            elif isinstance(command, contract.FetchFromOrigin):
                self._fetch(command)
            else:
                raise LocalError(f"the scheduler gave a command that nothing called for: {command}")

    def _at(self, when: float, action: Callable[[Any], None], argument: object) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, action, argument))

    def _fetch(self, command: contract.FetchFromOrigin) -> None:
        assert self._origin_bytes_s is not None, "the supernode has everything, and asks for more"
        gap_s = PIECE_BYTES / self._origin_bytes_s
        when = self.now
        for piece in indices(command.pieces):
            when += gap_s
            self._at(when, self._inbox_append, contract.PieceStored(_SWARM, SEED, piece))
        self._at(when, self._inbox_append, contract.OriginEnded(command.fetch_id, _SWARM, True))

    def _inbox_append(self, event: contract.Event) -> None:
        self._inbox.append(event)

    # --- transfers -------------------------------------------------------------------------------------------

    def _granted(self, lease: contract.GrantLease) -> None:
        transfer = Transfer(lease)
        if lease.ahead and self._uploads[lease.source]:
            self._ahead[lease.source].append(transfer)
        else:
            self._begin(transfer)

    def _begin(self, transfer: Transfer) -> None:
        lease = transfer.lease
        transfer.began_s = transfer.seen_s = self.now
        self._running[lease.lease_id] = transfer
        self._uploads[lease.source][lease.lease_id] = transfer
        self._downloads[lease.receiver][lease.lease_id] = transfer
        self.begun.append(lease)
        self._share(lease)

    def _share(self, changed: contract.GrantLease) -> None:
        """Work out the rates anew at both ends of the lease that began or ended."""
        touched = self._uploads[changed.source] | self._downloads[changed.receiver]
        for transfer in touched.values():
            lease = transfer.lease
            sharing = max(len(self._uploads[lease.source]), len(self._downloads[lease.receiver]))
            rate_bytes_s = RATE_BYTES_S / sharing
            if rate_bytes_s == transfer.rate_bytes_s:
                continue
            transfer.left_bytes -= transfer.rate_bytes_s * (self.now - transfer.seen_s)
            transfer.seen_s = self.now
            transfer.rate_bytes_s = rate_bytes_s
            transfer.version += 1
            ends_at = self.now + max(0.0, transfer.left_bytes) / rate_bytes_s
            self._at(ends_at, self._ended, (transfer, transfer.version))

    def _ended(self, predicted: tuple[Transfer, int]) -> None:
        transfer, version = predicted
        lease = transfer.lease
        if transfer.version != version or lease.lease_id not in self._running:
            return
        self._leave(transfer)
        peer = lease.receiver
        self.delivered += not self._held[peer] >> lease.piece & 1
        self.delivered_at = self.now
        self._held[peer] |= 1 << lease.piece
        elapsed_s = self.now - transfer.began_s
        stored = contract.PieceStored(_SWARM, peer, lease.piece, lease.lease_id, elapsed_s)
        self._at(self.now + CONTROL_DELAY_S, self._inbox_append, stored)
        if peer % READER_EVERY == 0:
            self._read_on(peer)

    def _read_on(self, peer: int) -> None:
        position = first_missing(self._held[peer])
        if position != self._reader[peer]:
            self._reader[peer] = position
            waited_for = position if position < self._pieces else None
            self._at(self.now + CONTROL_DELAY_S, self._inbox_append, contract.ReaderMoved(_SWARM, peer, waited_for))

    def _leave(self, transfer: Transfer) -> None:
        lease = transfer.lease
        del self._running[lease.lease_id]
        del self._uploads[lease.source][lease.lease_id]
        del self._downloads[lease.receiver][lease.lease_id]
        self._share(lease)
        ahead = self._ahead[lease.source]
        if ahead:
            self._begin(ahead.popleft())

    def _cancelled(self, command: contract.CancelLease) -> None:
        transfer = self._running.get(command.lease_id)
        if transfer is not None:
            self._leave(transfer)
            return
        for ahead in self._ahead:
            for waiting in list(ahead):
                if waiting.lease.lease_id == command.lease_id:
                    ahead.remove(waiting)
