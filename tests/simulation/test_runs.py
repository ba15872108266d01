"""Whole simulated runs: complete, repeatable to the last event, reported with the fan-out's keys."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from benchmarks.scenario import Arrivals, Faults, NodeClass, OriginBehaviour, equal_links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation, production_scheduler
from supernode.scheduler import invariants

if TYPE_CHECKING:
    from benchmarks.scenario import Scenario
    from supernode.scheduler.contract import Command, Event

PIECE_BYTES = 1_000_000
RATE = 1_000_000.0
SMALL = replace(equal_links(12, (30 * PIECE_BYTES,), RATE), piece_size_bytes=PIECE_BYTES)


# Everything that draws random numbers or walks over nodes, at once.
MESS = replace(
    SMALL,
    blobs=(20 * PIECE_BYTES, 10 * PIECE_BYTES),
    classes=(NodeClass("full", 1, 5 * RATE, 5 * RATE), NodeClass("quarter", 1, 2 * RATE, 2 * RATE)),
    racks=3,
    trunk_bytes_s=8 * RATE,
    arrivals=Arrivals(poisson_per_s=2.0, joiners=1),
    origin=OriginBehaviour(refused=1, retry_after_s=1.0),
    faults=Faults(churn_part=0.3, churn_to_s=10.0, churn_back_after_s=2.0, slow_part=0.1, slow_factor=0.5,
                  corrupt_part=0.1),
)  # fmt: skip


def trace(scenario: str, seed: int) -> str:
    """The trace hash of a small run."""
    return Simulation(replace({"plain": SMALL, "mess": MESS}[scenario], seed=seed)).run().trace_hash


@pytest.mark.parametrize("scenario", ["plain", "mess"])
def test_equal_seeds_give_equal_traces_whatever_the_hash_seed(scenario: str) -> None:
    code = f"from tests.simulation.test_runs import trace; print(trace({scenario!r}, 7))"
    traces = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("0", "4242")
    }
    assert traces == {trace(scenario, 7)}
    assert trace(scenario, 8) != trace(scenario, 7)


def test_every_node_ends_complete_and_the_origin_sends_the_blob_once() -> None:
    outcome = Simulation(SMALL).run()
    assert len(outcome.completed_s) == SMALL.nodes
    assert not outcome.errors
    assert outcome.run.origin_bytes == SMALL.size_bytes
    assert outcome.run.origin_gets == 1


def test_both_ways_of_sharing_come_to_about_the_same_makespan() -> None:
    exact = Simulation(SMALL).run().completed_s[-1]
    local = Simulation(SMALL, SimulationSettings(exact_nodes_max=0)).run().completed_s[-1]
    assert local == pytest.approx(exact, rel=0.1)


class Checked:
    """The production scheduler, which must keep its own rules now and then."""

    def __init__(self, scenario: Scenario, settings: SimulationSettings) -> None:
        self._machine = production_scheduler(scenario, settings)
        self._events = 0

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = self._machine.handle(event, now)
        self._events += 1
        if self._events % 50 == 0:
            invariants.check(self._machine)
        return commands

    def next_wakeup(self) -> float | None:
        return self._machine.next_wakeup()


class Timed:
    """The production scheduler, which notes when it is asked."""

    def __init__(self, scenario: Scenario, settings: SimulationSettings) -> None:
        self._machine = production_scheduler(scenario, settings)
        self.asked_s: list[float] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.asked_s.append(now)
        return self._machine.handle(event, now)

    def next_wakeup(self) -> float | None:
        return self._machine.next_wakeup()


def test_the_supernode_serves_one_frame_after_the_other_and_answers_after_each() -> None:
    service_s = 0.05
    made: list[Timed] = []

    def make(scenario: Scenario, settings: SimulationSettings) -> Timed:
        made.append(Timed(scenario, settings))
        return made[-1]

    at_once = replace(SMALL, blobs=(PIECE_BYTES,))
    outcome = Simulation(at_once, SimulationSettings(service_s=service_s), make_scheduler=make).run()
    turns_s = sorted(set(made[0].asked_s))
    assert all(later - earlier > 0.999 * service_s for earlier, later in pairwise(turns_s))
    # Every node says at once that it wants the blob: the last is heard, and has its first answer, after all others.
    firsts_s = sorted(client.first_byte_s or 0.0 for client in outcome.clients)
    assert firsts_s[-1] > at_once.nodes * service_s
    assert len(turns_s) >= at_once.nodes


@pytest.mark.parametrize("scenario", [SMALL, MESS], ids=["plain", "mess"])
def test_the_scheduler_keeps_its_rules_in_a_whole_run(scenario: Scenario) -> None:
    assert Simulation(scenario, make_scheduler=Checked).run().errors == ()


@pytest.mark.parametrize(("nodes", "pieces"), [(1, 1), (1, 5), (3, 1)])
def test_the_smallest_swarms_end_complete(nodes: int, pieces: int) -> None:
    outcome = Simulation(replace(SMALL, nodes=nodes, blobs=(pieces * PIECE_BYTES - 1,))).run()
    assert len(outcome.completed_s) == nodes
    assert all(client.first_byte_s is not None for client in outcome.clients)
