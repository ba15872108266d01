"""Pieces on their way between nodes: request, the source's slots first come first served, links, hash. No policy.

Stands in for peer.transport: every fetch ends in exactly one outcome, with its reasons and its elapsed time. A
cancelled transfer gives its slot and its share of the links back at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proto.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.simulator.checkers import Checker
    from benchmarks.simulator.clock import Call, Clock
    from benchmarks.simulator.links import Flow, Links
    from benchmarks.simulator.scenario import Scenario

    # (reason, elapsed seconds); the reason is empty on success.
    Ended = Callable[[str, float], None]


class Endpoint:
    """A node's two links, what it holds (mask), and its upload slots with the queue before them."""

    __slots__ = ("down", "held", "number", "running", "sent_bytes", "up", "waiting")

    def __init__(self, number: int, up: int, down: int) -> None:
        self.number = number
        self.up = up
        self.down = down
        self.held = 0
        self.running = 0
        self.waiting: deque[Transfer] = deque()
        self.sent_bytes = 0.0


class Transfer:
    """One fetch of one piece."""

    __slots__ = ("began_s", "deadline", "deadline_s", "ended", "flow", "over", "piece", "receiver", "source")

    def __init__(
        self, receiver: Endpoint, source: Endpoint, piece: int, deadline_s: float, began_s: float, ended: Ended
    ) -> None:
        self.receiver = receiver
        self.source = source
        self.piece = piece
        self.deadline_s = deadline_s
        self.began_s = began_s
        self.ended = ended
        self.flow: Flow | None = None
        self.deadline: Call | None = None
        self.over = False


class Transport:
    """All transfers of the world."""

    def __init__(self, clock: Clock, links: Links, scenario: Scenario, checkers: Sequence[Checker]) -> None:
        self._clock = clock
        self._links = links
        self._scenario = scenario
        self._layout = scenario.layout
        self._checkers = checkers
        # Pieces that some peer holds (mask), and when the last of them first came to one.
        self.spread = 0
        self.spread_s = 0.0
        self.endpoints = [
            Endpoint(node, links.add(rate), links.add(rate))
            for node, rate in enumerate([scenario.supernode_rate_bytes_s, *[scenario.rate_bytes_s] * scenario.nodes])
        ]

    def fetch(self, receiver: int, source: int, piece: int, deadline_s: float, ended: Ended) -> Transfer:
        """Begin; `ended` is called once."""
        now = self._clock.now
        transfer = Transfer(self.endpoints[receiver], self.endpoints[source], piece, deadline_s, now, ended)
        wait_s = self._scenario.slot_wait_s
        transfer.deadline = self._clock.after(wait_s, lambda: self._stop(transfer, FetchReason.TIMEOUT))
        self._clock.after(self._scenario.round_trip_s / 2, lambda: self._asked(transfer))
        return transfer

    def cancel(self, transfer: Transfer) -> None:
        """End it now; its outcome comes like any other."""
        self._clock.after(0.0, lambda: self._stop(transfer, FetchReason.CANCELLED))

    def _asked(self, transfer: Transfer) -> None:
        """The request is at the source."""
        source = transfer.source
        if transfer.over:
            return
        if not source.held >> transfer.piece & 1:
            self._refuse(transfer, FetchReason.NOT_HELD)
        elif source.running < self._scenario.slots:
            self._send(transfer)
        elif len(source.waiting) < self._scenario.queue_max:
            source.waiting.append(transfer)
        else:
            self._refuse(transfer, FetchReason.BUSY)

    def _refuse(self, transfer: Transfer, reason: str) -> None:
        self._clock.after(self._scenario.round_trip_s / 2, lambda: self._end(transfer, reason))

    def _send(self, transfer: Transfer) -> None:
        source = transfer.source
        source.running += 1
        # The answer's head comes first: time taken and deadline count from there, not from the wait for a slot.
        transfer.began_s = self._clock.now + self._scenario.round_trip_s / 2
        if transfer.deadline is not None:
            transfer.deadline.cancel()
        due_s = transfer.began_s + transfer.deadline_s
        transfer.deadline = self._clock.at(due_s, lambda: self._stop(transfer, FetchReason.TIMEOUT))
        for checker in self._checkers:
            checker.began(self._clock.now, source.number, source.running)
        size = float(self._layout.length(transfer.piece))
        transfer.flow = self._links.start((source.up, transfer.receiver.down), size, lambda: self._sent(transfer))

    def _sent(self, transfer: Transfer) -> None:
        """The last byte left: the slot is free, and the byte on its way."""
        size = self._layout.length(transfer.piece)
        transfer.flow = None
        transfer.source.sent_bytes += size
        self._free_slot(transfer.source)
        self._clock.after(
            self._scenario.round_trip_s / 2 + self._scenario.hash_s, lambda: self._received(transfer, size)
        )

    def _received(self, transfer: Transfer, size: int) -> None:
        if not transfer.over:
            receiver = transfer.receiver
            receiver.held |= 1 << transfer.piece
            if receiver.number and not self.spread >> transfer.piece & 1:
                self.spread |= 1 << transfer.piece
                self.spread_s = self._clock.now
            for checker in self._checkers:
                checker.arrived(self._clock.now, receiver.number, transfer.piece, size)
            self._end(transfer, "")

    def _free_slot(self, source: Endpoint) -> None:
        source.running -= 1
        while source.waiting and source.running < self._scenario.slots:
            following = source.waiting.popleft()
            if not following.over:
                self._send(following)

    def _stop(self, transfer: Transfer, reason: str) -> None:
        if transfer.over:
            return
        if transfer.flow is not None:
            transfer.source.sent_bytes += self._links.stop(transfer.flow)
            transfer.flow = None
            self._free_slot(transfer.source)
        self._end(transfer, reason)

    def _end(self, transfer: Transfer, reason: str) -> None:
        if transfer.over:
            return
        transfer.over = True
        if transfer.deadline is not None:
            transfer.deadline.cancel()
        transfer.ended(reason, max(0.0, self._clock.now - transfer.began_s))
