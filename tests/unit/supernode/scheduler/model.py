"""A small model of a cluster in virtual time, for the scheduler's tests: links shared equally, no TCP, no churn.

It carries out the machine's commands and reports back; it takes no decision of its own. A transfer runs at
min(uplink / uploads, downlink / downloads), worked out anew whenever a transfer begins or ends at either node.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supernode.scheduler import contract
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from supernode.scheduler.machine import Scheduler


@dataclass
class Transfer:
    """A piece on its way."""

    lease: contract.GrantLease
    began_s: float
    left_bytes: float
    seen_s: float
    rate_bytes_s: float = 0.0
    version: int = 0


@dataclass
class Cluster:
    """`nodes` peers 1..nodes that all want one blob at time 0. Rates in bytes/s, one for up and one for down each."""

    scheduler: Scheduler
    nodes: int
    pieces: int
    piece_bytes: int
    rate_bytes_s: float
    origin_rate_bytes_s: float | None = None
    control_delay_s: float = 0.0
    declared: bool = False
    zones: list[str] | None = None
    seed_rate_bytes_s: float | None = None
    now: float = 0.0
    done_at: dict[int, float] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    seed_sent: list[int] = field(default_factory=list)
    cross_rack: int = 0

    def __post_init__(self) -> None:
        self._queue: list[tuple[float, int, str, object]] = []
        self._order = 0
        self._running: dict[int, Transfer] = {}
        self._of_source: dict[int, dict[int, Transfer]] = {peer: {} for peer in range(self.nodes + 1)}
        self._of_receiver: dict[int, dict[int, Transfer]] = {peer: {} for peer in range(self.nodes + 1)}
        # Granted ahead, waiting until a transfer of its source has ended.
        self._waiting: dict[int, Transfer] = {}
        self._held = dict.fromkeys(range(1, self.nodes + 1), 0)
        self.arrived: dict[int, float] = {}

    def _push(self, at: float, kind: str, what: object) -> None:
        self._order += 1
        heapq.heappush(self._queue, (at, self._order, kind, what))

    def run(self) -> float:
        """Everything from cold to complete; returns when the last node had its last piece."""
        size = self.pieces * self.piece_bytes
        rate = self.rate_bytes_s if self.declared else None
        for peer in range(1, self.nodes + 1):
            zone = self.zones[peer - 1] if self.zones else ""
            self._tell(contract.PeerJoined(peer, zone, 8, 8, rate, rate))
        everything = (1 << self.pieces) - 1
        seed_held = 0 if self.origin_rate_bytes_s else everything
        self._tell(contract.SwarmOpened(1, size, self.piece_bytes, seed_held=seed_held))
        for peer in range(1, self.nodes + 1):
            self._tell(contract.PeerAnnounced(1, peer, 0, True))
        while len(self.done_at) < self.nodes:
            self._step()
        return max(self.done_at.values())

    def _step(self) -> None:
        wakeup = self.scheduler.next_wakeup()
        if self._queue and (wakeup is None or self._queue[0][0] <= wakeup):
            self.now, _, kind, what = heapq.heappop(self._queue)
            if kind == "end":
                self._ended(*what)  # type: ignore[misc]  # the queue holds three kinds of payload
            elif kind == "begin":
                self._begin(what)  # type: ignore[arg-type]  # likewise
            else:
                self._tell(what)  # type: ignore[arg-type]  # likewise
            return
        assert wakeup is not None, f"stalled at {self.now} with {self.nodes - len(self.done_at)} nodes incomplete"
        self.now = max(self.now, wakeup)
        self._tell(contract.Wakeup())

    def _tell(self, event: contract.Event) -> None:
        for command in self.scheduler.handle(event, self.now):
            if isinstance(command, contract.GrantLease):
                self._push(self.now + self.control_delay_s, "begin", command)
            elif isinstance(command, contract.FetchFromOrigin):
                self._fetch(command)
            elif isinstance(command, contract.CancelLease):
                self._cancel(command.lease_id)
            else:
                raise AssertionError(f"nothing failed, yet: {command}")

    def _fetch(self, command: contract.FetchFromOrigin) -> None:
        assert self.origin_rate_bytes_s is not None
        gap = self.piece_bytes / self.origin_rate_bytes_s
        for piece in range(self.pieces):
            assert command.pieces >> piece & 1
            self.arrived[piece] = self.now + (piece + 1) * gap
            self._push(self.arrived[piece], "event", contract.PieceStored(1, SEED, piece))
        self._push(self.now + self.pieces * gap, "event", contract.OriginEnded(command.fetch_id, 1, True))

    def _begin(self, lease: contract.GrantLease) -> None:
        transfer = Transfer(lease, self.now, self.piece_bytes, self.now)
        if lease.ahead and self._of_source[lease.source]:
            self._waiting[lease.lease_id] = transfer
        else:
            self._start(transfer)

    def _start(self, transfer: Transfer) -> None:
        lease = transfer.lease
        transfer.began_s = transfer.seen_s = self.now
        self._running[lease.lease_id] = transfer
        self._of_source[lease.source][lease.lease_id] = transfer
        self._of_receiver[lease.receiver][lease.lease_id] = transfer
        self.sent[lease.source] += 1
        if lease.source == SEED:
            self.seed_sent.append(lease.piece)
        if self.zones and (lease.source == SEED or self.zones[lease.source - 1] != self.zones[lease.receiver - 1]):
            self.cross_rack += 1
        self._share(lease.source, lease.receiver)

    def _share(self, source: int, receiver: int) -> None:
        touched = {**self._of_source[source], **self._of_receiver[receiver]}
        for transfer in touched.values():
            lease = transfer.lease
            transfer.left_bytes -= transfer.rate_bytes_s * (self.now - transfer.seen_s)
            transfer.seen_s = self.now
            up = self.rate_bytes_s if lease.source or self.seed_rate_bytes_s is None else self.seed_rate_bytes_s
            transfer.rate_bytes_s = min(
                up / len(self._of_source[lease.source]), self.rate_bytes_s / len(self._of_receiver[lease.receiver])
            )
            transfer.version += 1
            end = self.now + max(0.0, transfer.left_bytes) / transfer.rate_bytes_s
            self._push(end, "end", (lease.lease_id, transfer.version))

    def _ended(self, lease_id: int, version: int) -> None:
        transfer = self._running.get(lease_id)
        if transfer is None or transfer.version != version:
            return
        lease = transfer.lease
        self._leave(transfer)
        self._held[lease.receiver] |= 1 << lease.piece
        if self._held[lease.receiver] == (1 << self.pieces) - 1:
            self.done_at[lease.receiver] = self.now
        stored = contract.PieceStored(1, lease.receiver, lease.piece, lease_id, self.now - transfer.began_s)
        if self.control_delay_s:
            self._push(self.now + self.control_delay_s, "event", stored)
        else:
            self._tell(stored)

    def _leave(self, transfer: Transfer) -> None:
        lease = transfer.lease
        del self._running[lease.lease_id]
        del self._of_source[lease.source][lease.lease_id]
        del self._of_receiver[lease.receiver][lease.lease_id]
        self._share(lease.source, lease.receiver)
        for waiting in list(self._waiting.values()):
            if waiting.lease.source == lease.source:
                del self._waiting[waiting.lease.lease_id]
                self._start(waiting)
                break

    def _cancel(self, lease_id: int) -> None:
        self._waiting.pop(lease_id, None)
        transfer = self._running.get(lease_id)
        if transfer is not None:
            self._leave(transfer)
