"""Pieces on their way between nodes: request, the source's slots first come first served, links, hash. No policy.

Stands in for peer.transport: every fetch ends in exactly one outcome, with its reasons and its elapsed time. A
cancelled transfer gives its slot and its share of the links back at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.checkers import listeners
from benchmarks.simulator.transfer import Endpoint, Transfer
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from benchmarks.scenario import Scenario
    from benchmarks.simulator.checkers import Checker
    from benchmarks.simulator.clock import Clock
    from benchmarks.simulator.network import Network
    from benchmarks.simulator.settings import SimulationSettings
    from benchmarks.simulator.transfer import Ended


class Transport:
    """All transfers of a simulation."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        scenario: Scenario,
        settings: SimulationSettings,
        checkers: Sequence[Checker],
        delays: random.Random,
    ) -> None:
        self._clock = clock
        self._delays = delays
        self._profile = settings.profile
        self._network = network
        self._links = network.links
        self._settings = settings
        layouts = [scenario.layout(blob) for blob in range(len(scenario.all_blobs))]
        self._lengths = [[layout.length(piece) for piece in range(layout.count)] for layout in layouts]
        self._on_arrived = listeners(checkers, "arrived")
        # Pieces of each blob that some peer holds (mask), and when the last of them first came to one.
        self.spread = [0] * len(scenario.all_blobs)
        self.spread_s = 0.0
        # What nodes received, whole and right, from the supernode and from each other.
        self.seed_bytes = 0.0
        self.peer_bytes = 0.0
        self.endpoints = [Endpoint(number, len(scenario.all_blobs)) for number in range(scenario.nodes + 1)]

    def fetch(
        self,
        receiver: int,
        source: int,
        blob: int,
        piece: int,
        deadline_s: float,
        ended: Ended,
        number: int,
        *,
        ahead: bool = False,
        behind: Transfer | None = None,
    ) -> Transfer:
        """Begin; `ended` is called once with `number`, but never for a receiver that left meanwhile."""
        clock, settings = self._clock, self._settings
        to, whence = self.endpoints[receiver], self.endpoints[source]
        half_s = settings.round_trip_s / 2
        transfer = Transfer(to, whence, whence.life, blob, piece, deadline_s, clock.now, half_s, ended, number, ahead)
        to.transfers[transfer] = whence.transfers[transfer] = None
        connected = source in to.connected
        to.connected.add(source)
        reachable = connected or whence.alive
        transfer.late_s = clock.now + (settings.slot_wait_s if reachable else settings.connect_wait_s)
        # One call for both time limits; that of the transfer itself will not end before this.
        transfer.deadline = clock.at(min(transfer.late_s, clock.now + deadline_s), self._late, transfer, reachable)
        if connected:
            waits_s = self._profile.wake.draw(self._delays)
        else:
            waits_s = settings.connect_round_trips * 2 * half_s + self._profile.connect.draw(self._delays)
        if behind is None:
            self._ask(transfer, waits_s)
        else:
            clock.run_after(waits_s, self._follow, transfer, behind)
        return transfer

    def _follow(self, transfer: Transfer, behind: Transfer) -> None:
        """The connection stands; the request goes out when the one before it at the receiver is nearly over."""
        if behind.over or behind.nearly_over:
            self._ask(transfer)
            return
        behind.followers.append(transfer)
        if behind.flow is not None:
            behind.moved_bytes += self._links.stop(behind.flow)
            self._flow(behind)

    def _nearly(self, transfer: Transfer, size: float) -> None:
        """So many bytes moved, and the tail is left."""
        transfer.moved_bytes += size
        self._let_follow(transfer)
        self._flow(transfer)

    def _let_follow(self, transfer: Transfer) -> None:
        transfer.nearly_over = True
        followers, transfer.followers = transfer.followers, []
        for following in followers:
            self._ask(following, self._profile.wake.draw(self._delays))

    def cancel(self, transfer: Transfer) -> None:
        """End it now; its outcome comes like any other."""
        self._clock.run_after(0.0, self._stop, transfer, FetchReason.CANCELLED)

    def _ask(self, transfer: Transfer, waits_s: float = 0.0) -> None:
        """The request leaves so much later."""
        transfer.asked_s = self._clock.now + waits_s
        request_s = transfer.half_s + self._profile.request.draw(self._delays)
        self._clock.run_after(waits_s + request_s, self._asked, transfer)

    def _asked(self, transfer: Transfer) -> None:
        """The request is at the source."""
        source = transfer.source
        if transfer.over:
            return
        if not source.alive or source.life != transfer.source_life:
            if not self._settings.power_loss:
                self._refuse(transfer, FetchReason.CONNECTION)
        elif not source.held[transfer.blob] >> transfer.piece & 1:
            self._refuse(transfer, FetchReason.NOT_HELD)
        elif source.running < (1 if transfer.ahead else self._settings.slots):
            self._send(transfer)
        elif len(source.waiting) < self._settings.queue_max:
            source.waiting.append(transfer)
        else:
            self._refuse(transfer, FetchReason.BUSY)

    def _refuse(self, transfer: Transfer, reason: str) -> None:
        self._clock.run_after(transfer.half_s, self._end, transfer, reason)

    def _send(self, transfer: Transfer) -> None:
        source, now = transfer.source, self._clock.now
        source.running += 1
        # The answer's head comes first: time taken and deadline count from there, not from the wait for a slot.
        transfer.began_s = now + transfer.half_s
        transfer.late_s = transfer.began_s + transfer.deadline_s
        if not transfer.ahead:
            transfer.receiver.lead.answered(transfer.began_s - transfer.asked_s)
        self._flow(transfer)

    def _flow(self, transfer: Transfer) -> None:
        path = self._network.path(transfer.source.number, transfer.receiver.number)
        size = self._lengths[transfer.blob][transfer.piece]
        left, tail = size - transfer.moved_bytes, transfer.receiver.lead.size_bytes(size)
        if transfer.followers and left > tail:
            transfer.flow = self._links.start(path, left - tail, self._nearly, transfer, left - tail)
            return
        if transfer.followers:
            self._let_follow(transfer)
        transfer.flow = self._links.start(path, left, self._sent, transfer)

    def _sent(self, transfer: Transfer) -> None:
        """The last byte left: the slot is free, and the byte on its way."""
        size = self._lengths[transfer.blob][transfer.piece]
        transfer.flow = None
        # What left the source comes, even if the source does not live to see it.
        transfer.source.transfers.pop(transfer, None)
        transfer.source.sent_bytes += size
        transfer.receiver.air_bytes += size
        self._free_slot(transfer)
        self._clock.run_after(transfer.half_s + self._settings.hash_s, self._received, transfer, size)

    def _received(self, transfer: Transfer, size: int) -> None:
        receiver, source, blob = transfer.receiver, transfer.source, transfer.blob
        receiver.air_bytes -= size
        if transfer.over or source.corrupt:
            receiver.broken_bytes += size
            self._end(transfer, FetchReason.CORRUPT)
            return
        receiver.received_bytes += size
        receiver.lead.received(size, self._clock.now - transfer.began_s)
        receiver.held[blob] |= 1 << transfer.piece
        if receiver.number:
            if source.number:
                self.peer_bytes += size
            else:
                self.seed_bytes += size
            if not self.spread[blob] >> transfer.piece & 1:
                self.spread[blob] |= 1 << transfer.piece
                self.spread_s = self._clock.now
        for arrived in self._on_arrived:
            arrived(self._clock.now, receiver.number, blob, transfer.piece, size)
        self._end(transfer, "")

    def _late(self, transfer: Transfer, reachable: bool) -> None:
        if transfer.late_s > self._clock.now:
            transfer.deadline = self._clock.at(transfer.late_s, self._late, transfer, reachable)
        else:
            answered = reachable or transfer.flow is not None
            self._stop(transfer, FetchReason.TIMEOUT if answered else FetchReason.CONNECTION)

    def _free_slot(self, transfer: Transfer) -> None:
        source = transfer.source
        if source.life != transfer.source_life:
            return
        source.running -= 1
        one_ahead = True
        while source.waiting and source.running < self._settings.slots:
            if source.waiting[0].ahead and not one_ahead:
                return
            following = source.waiting.popleft()
            if not following.over:
                one_ahead = one_ahead and not following.ahead
                self._send(following)

    def _stop_flow(self, transfer: Transfer) -> bool:
        """No byte of it moves any more; whether it was being sent until now."""
        if transfer.flow is None:
            return False
        moved = transfer.moved_bytes + self._links.stop(transfer.flow)
        transfer.flow = None
        transfer.source.sent_bytes += moved
        transfer.receiver.broken_bytes += moved
        return True

    def _stop(self, transfer: Transfer, reason: str) -> None:
        if transfer.over:
            return
        if self._stop_flow(transfer):
            self._free_slot(transfer)
        self._end(transfer, reason)

    def _end(self, transfer: Transfer, reason: str) -> None:
        if transfer.over:
            return
        self._close(transfer)
        transfer.ended(transfer.number, reason, max(0.0, self._clock.now - transfer.began_s))

    def _close(self, transfer: Transfer) -> None:
        transfer.over = True
        if transfer.followers:
            self._let_follow(transfer)
        if transfer.deadline is not None:
            transfer.deadline.cancel()
        transfer.receiver.transfers.pop(transfer, None)
        transfer.source.transfers.pop(transfer, None)

    # --- nodes that leave --------------------------------------------------------------------------------------

    def leave(self, node: int) -> None:
        """All of the node's connections end, for itself at once, for the others when they notice."""
        endpoint = self.endpoints[node]
        endpoint.alive = False
        endpoint.life += 1
        for transfer in list(endpoint.transfers):
            if transfer.receiver is endpoint:
                self._abandon(transfer)
            elif not self._settings.power_loss:
                self._clock.run_after(transfer.half_s, self._stop, transfer, FetchReason.CONNECTION)
                self._stop_flow(transfer)
            else:
                self._stop_flow(transfer)
        endpoint.waiting.clear()
        endpoint.running = 0
        endpoint.connected.clear()

    def _abandon(self, transfer: Transfer) -> None:
        """Its receiver is gone. The source notices when what it sends is refused, or not taken."""
        self._close(transfer)
        if self._stop_flow(transfer):
            notice_s = self._settings.send_wait_s if self._settings.power_loss else transfer.half_s
            self._clock.run_after(notice_s, self._free_slot, transfer)

    def come_back(self, node: int) -> None:
        """The node serves again, what it held."""
        self.endpoints[node].alive = True
