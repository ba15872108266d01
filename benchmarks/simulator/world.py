"""The world: nodes, links and the supernode under one clock, run from cold to complete. It decides nothing."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.simulator.checkers import Checker, all_checkers
from benchmarks.simulator.clock import Clock
from benchmarks.simulator.links import Links
from benchmarks.simulator.peer import Peer
from benchmarks.simulator.scenario import bounds
from benchmarks.simulator.supernode import Supernode
from benchmarks.simulator.trace import Trace
from benchmarks.simulator.transport import Transport
from peer.downloader.machine import Downloader
from supernode.scheduler.machine import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import peer.downloader.contract
    import supernode.scheduler.contract
    from benchmarks.simulator.scenario import Scenario
    from proto.machine import Machine
    from proto.messages import Message

    SchedulerMachine = Machine[supernode.scheduler.contract.Event, supernode.scheduler.contract.Command]
    DownloaderMachine = Machine[peer.downloader.contract.Event, peer.downloader.contract.Command]

# A run that takes this many times the piece bound, and a minute for time-outs beside it, is stuck.
_STUCK_BOUNDS = 20.0
_STUCK_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Times are virtual seconds since the clients asked, but for `wall_s`."""

    scenario: Scenario
    completed_s: tuple[float, ...]
    first_byte_s: tuple[float, ...]
    # When every piece had been at some peer once.
    first_copies_s: float
    incomplete: tuple[int, ...]
    # What clients were told that were sent away; empty as it should be.
    errors: tuple[str, ...]
    origin_bytes: int
    origin_ranges: int
    seed_sent_bytes: float
    peers_sent_bytes: float
    counters: dict[str, int]
    trace_hash: str
    trace_entries: int
    wall_s: float


def production_scheduler(scenario: Scenario) -> Scheduler:
    """As supernode.app makes it."""
    rate = scenario.supernode_rate_bytes_s if scenario.declared else None
    return Scheduler(seed=scenario.seed, epoch=1, seed_upload_slots=scenario.slots, seed_upload_rate_bytes_s=rate)


def production_downloader(scenario: Scenario, node: int) -> Downloader:
    """As peer.app makes it."""
    return Downloader(random.Random(scenario.seed * 1_000_003 + node))


class World:
    """One run of a scenario. The factories exist so that tests can put broken machines in."""

    def __init__(
        self,
        scenario: Scenario,
        checkers: Sequence[Checker] | None = None,
        make_scheduler: Callable[[Scenario], SchedulerMachine] = production_scheduler,
        make_downloader: Callable[[Scenario, int], DownloaderMachine] = production_downloader,
    ) -> None:
        self.scenario = scenario
        self.checkers = all_checkers() if checkers is None else checkers
        self.clock = Clock()
        self.trace = Trace()
        self.links = Links(self.clock, exact=scenario.nodes <= scenario.exact_nodes_max)
        self.transport = Transport(self.clock, self.links, scenario, self.checkers)
        self._origin_link = origin_link = self.links.add(scenario.origin_rate_bytes_s)
        self._scheduler = make_scheduler(scenario)
        self._supernode = Supernode(self, self._scheduler, origin_link)
        self.peers = {
            node: Peer(node, self, make_downloader(scenario, node), self._send) for node in range(1, scenario.nodes + 1)
        }
        self._left = scenario.nodes

    def node_completed(self) -> None:
        """One node less to wait for."""
        self._left -= 1

    def _send(self, node: int, message: Message) -> None:
        self.clock.after(self.scenario.round_trip_s / 2, lambda: self._supernode.received(node, message))

    def run(self) -> Outcome:
        """From the sessions' opening to the last node's completion. Raises RuleBroken."""
        began = time.perf_counter()
        for checker in self.checkers:
            checker.opened(self.scenario)
        for node in self.peers:
            self._supernode.join(node)
        for peer in self.peers.values():
            peer.begin()
        until_s = _STUCK_BOUNDS * bounds(self.scenario).piece_s + _STUCK_S
        while self._left > 0 and self.clock.step(until_s):
            pass
        incomplete = tuple(node for node, peer in self.peers.items() if peer.completed_s is None)
        self._tell_carried()
        for checker in self.checkers:
            checker.ended(self.clock.now, incomplete)
        return self._outcome(incomplete, time.perf_counter() - began)

    def _tell_carried(self) -> None:
        now, links = self.clock.now, self.links
        up = [(f"the uplink of node {endpoint.number}", endpoint.up) for endpoint in self.transport.endpoints]
        down = [(f"the downlink of node {endpoint.number}", endpoint.down) for endpoint in self.transport.endpoints]
        up.append(("the origin's uplink", self._origin_link))
        for checker in self.checkers:
            for name, link in up:
                checker.carried(now, name, links.capacity_bytes_s[link], links.carried_bytes[link], 0.0)
            for name, link in down:
                checker.carried(now, name, links.capacity_bytes_s[link], 0.0, links.carried_bytes[link])

    def _outcome(self, incomplete: tuple[int, ...], wall_s: float) -> Outcome:
        peers = self.peers.values()
        endpoints = self.transport.endpoints
        return Outcome(
            scenario=self.scenario,
            completed_s=tuple(sorted(peer.completed_s for peer in peers if peer.completed_s is not None)),
            first_byte_s=tuple(sorted(peer.first_byte_s for peer in peers if peer.first_byte_s is not None)),
            first_copies_s=self.transport.spread_s,
            incomplete=incomplete,
            errors=tuple(f"node {peer.node}: {peer.error}" for peer in peers if peer.error),
            origin_bytes=self._supernode.origin_bytes,
            origin_ranges=self._supernode.origin_ranges,
            seed_sent_bytes=endpoints[0].sent_bytes,
            peers_sent_bytes=sum(endpoint.sent_bytes for endpoint in endpoints[1:]),
            counters=dict(self._scheduler.counters) if isinstance(self._scheduler, Scheduler) else {},
            trace_hash=self.trace.digest,
            trace_entries=self.trace.entries,
            wall_s=wall_s,
        )
