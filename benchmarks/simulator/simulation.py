"""Nodes, links, origin and supernode under one clock, run until every client has ended. It decides nothing."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.bounds import Bounds  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from benchmarks.results import ModeRun, NodeTimes
from benchmarks.scenario import Scenario  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from benchmarks.simulator.client import Client
from benchmarks.simulator.environment import Environment
from benchmarks.simulator.memory import uncollected
from benchmarks.simulator.names import peer_id
from benchmarks.simulator.peer import Peer, Store
from benchmarks.simulator.settings import SimulationSettings  # noqa: TC001  # the same
from benchmarks.simulator.supernode import Supernode
from benchmarks.simulator.watch import Watch
from peer.downloader.machine import Downloader
from proto.ids import peer_name
from supernode.scheduler.contract import SEED
from supernode.scheduler.machine import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import peer.downloader.contract
    import supernode.scheduler.contract
    from benchmarks.scenario import Fate
    from benchmarks.simulator.checkers import Checker
    from proto.machine import Machine
    from proto.wire.messages import Message
    from supernode.control.peer_session import PeerSession

    SchedulerMachine = Machine[supernode.scheduler.contract.Event, supernode.scheduler.contract.Command]
    DownloaderMachine = Machine[peer.downloader.contract.Event, peer.downloader.contract.Command]

# A run that takes this many times its bound, and so much more for time-outs, is stuck.
_STUCK_BOUNDS = 20.0
_STUCK_S = 120.0
# Points of the curves that a report shows.
_SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Times are virtual seconds, but for `wall_s`. Clients are by number from 1."""

    scenario: Scenario
    settings: SimulationSettings
    bounds: Bounds
    run: ModeRun
    clients: tuple[Client, ...]
    # Live nodes that are neither complete nor say why not; empty as it should be.
    nameless: tuple[int, ...]
    counters: dict[str, int]
    trace_hash: str
    trace_entries: int
    wall_s: float

    @property
    def completed_s(self) -> tuple[float, ...]:
        """Of all complete nodes, ascending."""
        return tuple(sorted(node.completed_s for node in self.run.nodes if node.completed_s is not None))

    @property
    def errors(self) -> tuple[str, ...]:
        """Why clients were sent away, and which nodes do not know why they wait; empty as it should be."""
        return tuple(f"node {node.node}: {node.error}" for node in self.run.nodes if node.error)


def production_scheduler(scenario: Scenario, settings: SimulationSettings) -> Scheduler:
    """As supernode.app makes it."""
    rate = scenario.supernode_bytes_s or None if scenario.declared else None
    return Scheduler(seed=scenario.seed, epoch=1, seed_upload_slots=settings.slots, seed_upload_rate_bytes_s=rate)


def production_downloader(scenario: Scenario, node: int) -> Downloader:
    """As peer.app makes it."""
    return Downloader(random.Random(scenario.seed * 1_000_003 + node), peer_name(peer_id(node)))


class Simulation(Environment):
    """One run of a scenario. The factories exist so that tests can put broken machines in."""

    def __init__(
        self,
        scenario: Scenario,
        settings: SimulationSettings | None = None,
        checkers: Sequence[Checker] | None = None,
        make_scheduler: Callable[[Scenario, SimulationSettings], SchedulerMachine] = production_scheduler,
        make_downloader: Callable[[Scenario, int], DownloaderMachine] = production_downloader,
    ) -> None:
        super().__init__(scenario, settings, checkers)
        self._scheduler = make_scheduler(scenario, self.settings)
        self._make_downloader = make_downloader
        self.supernode = Supernode(self, self._scheduler)
        numbers = range(1, scenario.nodes + 1)
        # To which nodes the preheated blob has yet to come.
        self._preheating = dict.fromkeys(numbers if scenario.preheat_bytes else ())
        self._pullers = numbers[: scenario.nodes - scenario.bystanders]
        self._stores = {node: Store(len(scenario.all_blobs)) for node in numbers}
        self.clients = {node: Client(node, self, self._client_ended) for node in numbers}
        # Whose client has begun or should have; and which peers run, with their sessions.
        self._due: dict[int, None] = {}
        self._peers: dict[int, Peer] = {}
        self._sessions: dict[int, PeerSession] = {}
        # When the last frame of each so far arrives: none overtakes another.
        self._arrive_s: dict[int, float] = {}
        self._waiting = dict.fromkeys(self._pullers)
        self._joiners = [node for node, asks_s in enumerate(scenario.arrivals_s(), start=1) if asks_s is None]
        self._watch = Watch(self, self.clients, max(self.bounds.fluid_s, 1e-3) / _SAMPLES)

    # --- nodes ---------------------------------------------------------------------------------------------------

    def _start_peer(self, node: int) -> None:
        """The node's process starts and opens its session; its client goes on, if it has begun."""
        scenario = self.scenario
        peer = Peer(
            self,
            self._make_downloader(scenario, node),
            self.transport.endpoints[node],
            self._stores[node],
            self.clients[node],
            self._send,
        )
        links, rack = scenario.class_of(node - 1), scenario.rack_of(node - 1)
        zone = "" if rack is None else f"region/zone/rack-{rack}"
        rates = (links.up_bytes_s or None, links.down_bytes_s or None) if scenario.declared else (None, None)
        self._peers[node] = peer
        self._sessions[node] = self.supernode.join(peer, zone, *rates)
        peer.begin()
        if self.scenario.preheat_bytes:
            peer.begin_preheat(len(self.scenario.blobs), self._preheated)
        if node in self._due:
            self.clients[node].begin(peer)

    def _schedule_faults(self) -> None:
        """All departures and returns. Everybody else learns of one only as of a process that was killed."""
        for number, fate in enumerate(self.scenario.fates(), start=1):
            self.transport.endpoints[number].corrupt = fate.corrupt
            if fate.leaves_s is not None:
                self.clock.run_at(fate.leaves_s, self._leave, number, fate)
            if fate.returns_s is not None:
                self.clock.run_at(fate.returns_s, self._come_back, number)
        if self.scenario.faults.supernode_killed_s:
            self.clock.run_at(self.scenario.faults.supernode_killed_s, self._kill_supernode)

    def _kill_supernode(self) -> None:
        """All sessions end, and nobody comes to its upload server any more."""
        self.supernode.leave()
        self.transport.leave(SEED)
        self._sessions.clear()
        for peer in self._peers.values():
            self.clock.run_after(self.settings.round_trip_s / 2, peer.lose_supernode)

    def _leave(self, node: int, fate: Fate) -> None:
        """The node's process is no more, or its machine without power; nobody else knows yet."""
        settings = self.settings
        self.transport.leave(node)
        self._peers.pop(node).leave()
        if settings.power_loss:
            notice_s, reason = settings.pings_missed_max * settings.ping_interval_s, "pings missed"
        else:
            notice_s, reason = settings.round_trip_s / 2, "connection lost"
        session = self._sessions.pop(node, None)
        if session is not None:
            self.clock.run_after(notice_s, self.supernode.lost, session, reason)
        if fate.returns_s is None:
            self._settle(node)

    def _come_back(self, node: int) -> None:
        self.transport.come_back(node)
        self._start_peer(node)

    def _client_ended(self, client: Client) -> None:
        """It has all, or was sent away."""
        self._settle(client.node)

    def _preheated(self, node: int) -> None:
        self._preheating.pop(node, None)
        if not self._busy:
            self.clock.stop()

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._preheating)

    def _settle(self, node: int) -> None:
        self._waiting.pop(node, None)
        if not self._busy:
            self.clock.stop()
        if self._joiners and all(waiting in self._joiners for waiting in self._waiting):
            joiners, self._joiners = self._joiners, []
            for joiner in joiners:
                self.clock.run_after(0.0, self._begin_client, joiner)

    def _begin_client(self, node: int) -> None:
        self._due[node] = None
        peer = self._peers.get(node)
        if peer is not None:
            self.clients[node].begin(peer)

    def _send(self, node: int, frame: list[Message]) -> None:
        """Bring a peer's messages to the supernode; what is added to the frame at this instant goes along."""
        session = self._sessions.get(node)
        if session is not None:
            delay_s = self.settings.round_trip_s / 2 + self.settings.profile.control.draw(self.delays)
            arrives_s = self._arrive_s[node] = max(self._arrive_s.get(node, 0.0), self.clock.now + delay_s)
            self.clock.run_at(arrives_s, self.supernode.received, session, frame)

    # --- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """From the sessions' opening to the last client's end. Raises RuleBroken."""
        began = time.perf_counter()
        for checker in self.checkers:
            checker.opened(self.scenario, self.settings)
        for node in self.clients:
            self._start_peer(node)
        for node, asks_s in zip(self._pullers, self.scenario.arrivals_s(), strict=False):
            if asks_s == 0.0:
                self._begin_client(node)
            elif asks_s is not None:
                self.clock.run_at(asks_s, self._begin_client, node)
        self._schedule_faults()
        self._watch.begin()
        until_s = self._stuck_s()
        with uncollected():
            while self._busy and self.clock.run(until_s):
                pass
        self._watch.finish()
        nameless = (*self._waiting, *self._preheating)
        self._tell_links()
        for checker in self.checkers:
            checker.ended(self.clock.now, nameless)
        return self._outcome(nameless, time.perf_counter() - began)

    def _stuck_s(self) -> float:
        """When a run that goes on is stuck: all that must be waited for, and many times what bytes can take."""
        scenario = self.scenario
        origin, faulty = scenario.origin, scenario.faults
        slowest = faulty.slow_factor if faulty.slow_part else 1.0
        waits_s = origin.first_byte_s + origin.stall_s + origin.refused * origin.retry_after_s
        waits_s += faulty.churn_to_s + faulty.churn_back_after_s + faulty.supernode_killed_s
        return _STUCK_BOUNDS * self.bounds.piece_s / max(slowest, 1e-3) + waits_s + _STUCK_S

    def _tell_links(self) -> None:
        now, links, network = self.clock.now, self.links, self.network
        carried = links.carried_bytes
        named = {network.origin: "the origin's uplink"}
        for word, numbers in (("uplink of node", network.up), ("downlink of node", network.down)):
            named.update({link: f"the {word} {node}" for node, link in enumerate(numbers)})
        for word, numbers in (("out of", network.trunks_up), ("into", network.trunks_down)):
            named.update({link: f"the trunk {word} rack {rack}" for rack, link in enumerate(numbers)})
        for checker in self.checkers:
            for link, name in named.items():
                checker.carried(now, name, links.capacity_bytes_s[link], carried[link])
            checker.moved(now, "the origin", (self.origin.bytes, carried[network.origin]), (0.0, 0.0))
            for node, endpoint in enumerate(self.transport.endpoints):
                came_bytes = endpoint.received_bytes + endpoint.broken_bytes + endpoint.air_bytes
                out, into = carried[network.up[node]], carried[network.down[node]]
                checker.moved(now, f"node {node}", (endpoint.sent_bytes, out), (came_bytes, into))

    def _outcome(self, nameless: tuple[int, ...], wall_s: float) -> Outcome:
        counters = dict(self._scheduler.counters) if isinstance(self._scheduler, Scheduler) else {}
        return Outcome(
            scenario=self.scenario,
            settings=self.settings,
            bounds=self.bounds,
            run=self._mode_run(nameless, counters),
            clients=tuple(self.clients.values()),
            nameless=nameless,
            counters=counters,
            trace_hash=self.trace.digest,
            trace_entries=self.trace.entries,
            wall_s=wall_s,
        )

    def _mode_run(self, nameless: tuple[int, ...], counters: dict[str, int]) -> ModeRun:
        """What the common report shows, of the one mode that is simulated."""
        endpoints, origin, cross_rack_bytes = self.transport.endpoints, self.origin, self.network.cross_rack_bytes
        clients, fates = [self.clients[node] for node in self._pullers], self.scenario.fates()
        return ModeRun(
            mode="scheduled",
            nodes=tuple(self._times(one, fate, nameless) for one, fate in zip(clients, fates, strict=False)),
            samples=tuple(self._watch.samples),
            origin_bytes=origin.bytes,
            origin_gets=origin.gets,
            origin_repeated_bytes=origin.repeated_bytes,
            seed_bytes=round(endpoints[0].sent_bytes),
            peer_bytes=round(sum(endpoint.sent_bytes for endpoint in endpoints[1:])),
            cross_rack_bytes=None if cross_rack_bytes is None else round(cross_rack_bytes),
            # When every piece had been at some peer once.
            more={"first_copies_s": self.transport.spread_s, "scheduler": counters},
        )

    def _times(self, client: Client, fate: Fate, nameless: tuple[int, ...]) -> NodeTimes:
        unsaid = "not complete, and nobody said why" if client.node in nameless else ""
        return NodeTimes(
            node=client.node - 1,
            class_name=self.scenario.class_of(client.node - 1).name,
            asked_s=client.asked_s or 0.0,
            first_byte_s=client.first_byte_s,
            completed_s=client.completed_s,
            fate=fate.name,
            error=client.error or unsaid,
        )
