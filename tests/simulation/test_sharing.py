"""Above 200 nodes links are shared locally: where both ways can be run, they come to the same times."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

from benchmarks.scenario import NodeClass, Scenario, equal_links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation

RATE = 1e8
PIECE = 4_000_000
EQUAL = replace(equal_links(200, (30 * PIECE,), RATE), piece_size_bytes=PIECE)
MIXED = replace(EQUAL, classes=(NodeClass("fast", 1, RATE, RATE), NodeClass("slow", 1, RATE / 4, RATE / 4)))


@pytest.mark.parametrize("scenario", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_the_local_share_ends_within_3_per_cent_of_the_exact_one(scenario: Scenario) -> None:
    # Each run is one of many possible ones: a median of three tells the ways of sharing apart from chance.
    exact_s, local_s = (
        median(_makespan_s(replace(scenario, seed=seed), exact_nodes_max=nodes) for seed in (1, 2, 3))
        for nodes in (200, 0)
    )
    assert local_s == pytest.approx(exact_s, rel=0.03)


def _makespan_s(scenario: Scenario, exact_nodes_max: int) -> float:
    return Simulation(scenario, SimulationSettings(exact_nodes_max=exact_nodes_max), ()).run().completed_s[-1]
