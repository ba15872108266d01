"""What the simulator does of a scenario: images, classes, racks, arrivals, origins and nodes that misbehave."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.scenario import Arrivals, Faults, NodeClass, OriginBehaviour, Scenario, equal_links
from benchmarks.simulator.checkers import Checker
from benchmarks.simulator.scenarios import SCENARIOS
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Outcome, Simulation, production_scheduler
from proto.pieces import KIB
from supernode.scheduler.contract import Command, Event, PeerLost

if TYPE_CHECKING:
    from supernode.scheduler.machine import Scheduler

PIECE_BYTES = 100_000
RATE = 1_000_000.0
SMALL = replace(equal_links(12, (30 * PIECE_BYTES,), RATE), piece_size_bytes=PIECE_BYTES)


def run(scenario: Scenario, settings: SimulationSettings | None = None) -> Outcome:
    """Under every checker."""
    return Simulation(scenario, settings).run()


def completed(outcome: Outcome, node: int) -> float:
    """When the node of this number, from 0, was complete; it must have been."""
    found = outcome.clients[node].completed_s
    assert found is not None
    return found


# --- images, classes, racks --------------------------------------------------------------------------------------


def test_an_image_comes_a_few_layers_at_a_time_in_their_order() -> None:
    layers = (4 * PIECE_BYTES, 3 * PIECE_BYTES, 2 * PIECE_BYTES, PIECE_BYTES)
    outcome = run(replace(SMALL, blobs=layers, parallel=2))
    assert len(outcome.completed_s) == SMALL.nodes
    assert outcome.run.origin_bytes == sum(layers)
    assert outcome.run.origin_gets == len(layers)


def test_nodes_of_a_slower_class_are_complete_later() -> None:
    classes = (NodeClass("full", 1, RATE, RATE), NodeClass("quarter", 1, RATE / 4, RATE / 4))
    outcome = run(replace(SMALL, classes=classes))
    full = [completed(outcome, node) for node in range(0, SMALL.nodes, 2)]
    quarter = [completed(outcome, node) for node in range(1, SMALL.nodes, 2)]
    assert max(full) < min(quarter)
    assert min(quarter) >= SMALL.size_bytes / (RATE / 4)


def test_what_comes_into_a_rack_passes_its_trunk_and_is_counted() -> None:
    outcome = run(replace(SMALL, racks=3, trunk_bytes_s=2 * RATE))
    assert outcome.run.cross_rack_bytes is not None
    assert outcome.run.cross_rack_bytes >= 3 * SMALL.size_bytes
    assert run(SMALL).run.cross_rack_bytes is None


def test_a_narrow_trunk_delays_everybody_behind_it() -> None:
    outcome = run(replace(SMALL, racks=3, trunk_bytes_s=RATE / 4))
    assert min(outcome.completed_s) >= SMALL.size_bytes / (RATE / 4)


def test_links_without_a_limit_are_no_limit() -> None:
    classes = (NodeClass("node", 1, 0.0, 0.0),)
    outcome = run(replace(SMALL, classes=classes, origin_bytes_s=0.0, supernode_bytes_s=RATE))
    assert outcome.completed_s[-1] < 2 * SMALL.size_bytes / RATE


# --- arrivals ----------------------------------------------------------------------------------------------------


def test_joiners_ask_when_all_others_are_complete() -> None:
    outcome = run(replace(SMALL, arrivals=Arrivals(joiners=2)))
    others = max(completed(outcome, node) for node in range(SMALL.nodes - 2))
    for client in outcome.clients[-2:]:
        assert client.asked_s == pytest.approx(others)
    assert outcome.run.origin_bytes == SMALL.size_bytes


def test_clients_of_a_poisson_process_ask_at_its_times() -> None:
    scenario = replace(SMALL, arrivals=Arrivals(poisson_per_s=5.0))
    outcome = run(scenario)
    assert tuple(client.asked_s for client in outcome.clients) == scenario.arrivals_s()


# --- the origin --------------------------------------------------------------------------------------------------


def test_a_late_first_byte_delays_all_and_costs_no_second_request() -> None:
    outcome = run(replace(SMALL, origin=OriginBehaviour(first_byte_s=5.0)))
    assert outcome.run.origin_gets == 1
    assert completed(outcome, 0) == pytest.approx(completed(run(SMALL), 0) + 5.0, abs=1.0)
    assert not outcome.errors


def test_a_refusing_origin_is_asked_again_when_it_said() -> None:
    outcome = run(replace(SMALL, origin=OriginBehaviour(refused=2, retry_after_s=3.0)))
    assert outcome.run.origin_gets == 3
    assert min(client.first_byte_s or 0.0 for client in outcome.clients) > 6.0
    assert not outcome.errors


def test_a_short_stall_is_waited_for_and_after_a_long_one_the_rest_is_asked_for() -> None:
    assert run(replace(SMALL, origin=OriginBehaviour(stall_s=5.0))).run.origin_gets == 1
    long = run(replace(SMALL, origin=OriginBehaviour(stall_s=15.0)))
    assert (long.run.origin_gets, long.run.origin_repeated_bytes) == (2, 0)
    assert not long.errors


def test_where_the_supernode_is_refused_for_long_one_elected_node_fetches_for_all() -> None:
    outcome = run(replace(SMALL, origin=OriginBehaviour(refused=9, retry_after_s=1.0)))
    assert outcome.counters["elections"] == 1
    assert (outcome.run.origin_bytes, outcome.run.origin_repeated_bytes) == (SMALL.size_bytes, 0)
    assert not outcome.errors


def test_whom_nobody_can_serve_is_told_so() -> None:
    outcome = run(replace(SMALL, origin=OriginBehaviour(refused=1000, retry_after_s=1.0)))
    assert len(outcome.errors) == SMALL.nodes
    assert not outcome.nameless
    assert any("rate_limited" in error for error in outcome.errors), "of those that tried"


def test_a_tiny_blob_travels_inside_messages() -> None:
    outcome = run(replace(equal_links(20, (10_000,), 12.5e6)))
    assert outcome.run.peer_bytes == 0
    assert outcome.run.seed_bytes == 20 * 10_000


# --- nodes that misbehave ----------------------------------------------------------------------------------------


def test_nodes_that_leave_for_good_are_not_waited_for() -> None:
    scenario = replace(SMALL, faults=Faults(churn_part=0.5, churn_to_s=1.0))
    outcome = run(scenario)
    gone = {node for node, fate in enumerate(scenario.fates()) if fate.leaves_s is not None}
    assert len(gone) == 6
    assert {client.node - 1 for client in outcome.clients if client.completed_s is None} == gone
    assert not outcome.errors


def test_nodes_that_come_back_keep_what_they_had_and_get_the_rest() -> None:
    faults = Faults(churn_part=0.5, churn_from_s=1.5, churn_to_s=2.0, churn_back_after_s=0.5)
    outcome = run(replace(SMALL, faults=faults))
    assert len(outcome.completed_s) == SMALL.nodes
    # What was on its way when they left came twice, and nothing else.
    sent_bytes = (outcome.run.seed_bytes or 0) + (outcome.run.peer_bytes or 0)
    assert sent_bytes < (SMALL.nodes + 1) * SMALL.size_bytes
    assert outcome.run.origin_bytes == SMALL.size_bytes


def test_without_their_supernode_nodes_finish_among_themselves_and_ask_the_origin_little_twice() -> None:
    scenario = equal_links(16, (24 * 256 * KIB,), RATE / 4)
    outcome = run(replace(scenario, faults=Faults(supernode_killed_s=8.0)))
    assert len(outcome.completed_s) == scenario.nodes
    # What the supernode alone had, and what was on its way to it.
    assert outcome.run.origin_repeated_bytes <= 2 * 256 * KIB
    # They wait for it for 6 s. 2.6 to 2.7 times where each new piece went to all at once.
    assert outcome.completed_s[-1] < 2.3 * run(scenario).completed_s[-1]


def test_a_loss_of_power_is_noticed_by_time_alone() -> None:
    # It takes 12 s: more than three missed pings.
    faults = Faults(churn_part=0.25, churn_from_s=1.5, churn_to_s=2.0)
    scenario = replace(SMALL, blobs=(120 * PIECE_BYTES,), faults=faults)
    ended = losses_s(scenario, SimulationSettings())
    without_power = losses_s(scenario, SimulationSettings(power_loss=True))
    assert len(ended) == len(without_power) == 3
    for soon, late in zip(ended, without_power, strict=True):
        assert late - soon == pytest.approx(6.0, abs=0.1)


def losses_s(scenario: Scenario, settings: SimulationSettings) -> list[float]:
    """When the scheduler was told of each lost peer."""
    heard: list[float] = []
    simulation = Simulation(
        scenario, settings, make_scheduler=lambda *parts: HearsOfLosses(heard, production_scheduler(*parts))
    )
    simulation.run()
    return heard


class HearsOfLosses:
    """The production scheduler, overheard."""

    def __init__(self, heard: list[float], machine: Scheduler) -> None:
        self._heard = heard
        self._machine = machine

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, PeerLost):
            self._heard.append(now)
        return self._machine.handle(event, now)

    def next_wakeup(self) -> float | None:
        return self._machine.next_wakeup()


def test_slow_nodes_are_slow_whatever_they_declared_and_the_others_are_not() -> None:
    scenario = replace(SMALL, declared=True, faults=Faults(slow_part=0.1, slow_factor=0.2))
    outcome = run(scenario)
    slow = next(node for node, fate in enumerate(scenario.fates()) if fate.slow)
    assert completed(outcome, slow) >= SMALL.size_bytes / (0.2 * RATE)
    assert max(completed(outcome, node) for node in range(SMALL.nodes) if node != slow) < completed(outcome, slow)


def test_a_corrupt_node_is_found_out_and_asked_no_more() -> None:
    scenario = replace(SMALL, faults=Faults(corrupt_part=0.1))
    simulation = Simulation(scenario)
    outcome = simulation.run()
    assert outcome.counters["quarantined"] == 1
    # Whoever was fetching from it before the supernode had seen for itself, and nobody later.
    assert 1 <= outcome.counters["failed_disputed"] + outcome.counters["failed_protocol"] <= SimulationSettings().slots
    assert len(outcome.completed_s) == SMALL.nodes


# --- the named ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_named_scenario_is_the_same_in_both_sizes_but_for_its_size(name: str) -> None:
    one = SCENARIOS[name]
    assert one.full.nodes == 200
    assert one.small.nodes <= 60
    assert one.full.name == one.small.name == name
    assert len(one.full.blobs) == len(one.small.blobs)
    assert one.limits
    for scenario in (one.full, one.small):
        fates = scenario.fates()
        for part in ("slow_part", "corrupt_part", "churn_part"):
            assert (getattr(scenario.faults, part) > 0) == any(
                {"slow_part": fate.slow, "corrupt_part": fate.corrupt, "churn_part": fate.leaves_s is not None}[part]
                for fate in fates
            )


def test_a_node_whose_link_needs_seconds_for_a_piece_gets_its_pieces() -> None:
    # 4 MiB over 1.56 MB/s take 2.7 s; two at a time 5.4 s, and the least time of a lease is 5 s.
    piece_bytes = 4 << 20
    scenario = replace(
        equal_links(4, (8 * piece_bytes,), 31.25e6),
        piece_size_bytes=piece_bytes,
        faults=Faults(slow_part=0.25, slow_factor=0.05),
    )
    run(scenario)


class Counts(Checker):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.arrived_pieces = 0

    def arrived(self, now: float, node: int, blob: int, piece: int, size_bytes: float) -> None:
        """See Checker."""
        self.arrived_pieces += 1


def test_checkers_hear_of_every_piece_at_every_node_and_the_seed() -> None:
    counts = Counts()
    Simulation(SMALL, checkers=[counts]).run()
    assert counts.arrived_pieces == (SMALL.nodes + 1) * 30


# --- preheats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bystanders", [0, 6])
def test_a_pull_beside_a_preheat_takes_hardly_longer_than_alone(bystanders: int) -> None:
    scenario = replace(SMALL, preheat_bytes=SMALL.size_bytes, bystanders=bystanders)
    alone, beside = run(scenario.pulls_alone), run(scenario)
    assert len(beside.completed_s) == SMALL.nodes - bystanders
    assert beside.completed_s[-1] <= 1.1 * alone.completed_s[-1]


def test_what_is_preheated_comes_to_every_node_and_once_from_the_origin() -> None:
    outcome = run(replace(SMALL, preheat_bytes=SMALL.size_bytes, bystanders=6))
    assert outcome.nameless == ()
    assert outcome.run.origin_bytes == 2 * SMALL.size_bytes
