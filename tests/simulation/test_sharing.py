"""Above 200 nodes links are shared locally: where both ways can be run, they come to the same times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scenario import NodeClass, Scenario, equal_links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.world import World

RATE = 1e8
PIECE = 4_000_000
EQUAL = replace(equal_links(200, (30 * PIECE,), RATE), piece_size_bytes=PIECE)
MIXED = replace(EQUAL, classes=(NodeClass("fast", 1, RATE, RATE), NodeClass("slow", 1, RATE / 4, RATE / 4)))


@pytest.mark.parametrize("scenario", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_the_local_share_ends_within_3_per_cent_of_the_exact_one(scenario: Scenario) -> None:
    exact, local = (
        World(scenario, SimulationSettings(exact_nodes_max=nodes), ()).run().completed_s[-1] for nodes in (200, 0)
    )
    assert local == pytest.approx(exact, rel=0.03)
