"""The scheduler's choice of pieces earns its keep: a choice that looks at no counts of copies takes longer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulator.scenarios import equal
from benchmarks.simulator.simulation import Simulation
from proto.pieces import indices
from supernode.scheduler import selection
from supernode.scheduler.contract import SEED
from supernode.scheduler.masks import any_bit
from supernode.scheduler.rarity import Rarity
from supernode.scheduler.rules import first_copies, rack_copies, readers

if TYPE_CHECKING:
    from benchmarks.scenario import Scenario
    from supernode.scheduler.records import Node, Swarm
    from supernode.scheduler.state import State


def choose_at_random_among_peers(patch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """Any piece that the one has and the other lacks, where a peer is the source."""

    def any_found(
        state: State, swarm: Swarm, pieces: int, nodes_of: list[int], nodes: int, source: Node | None
    ) -> tuple[int, int]:
        found = []
        for piece in indices(pieces):
            listed = nodes_of[piece] & nodes
            if listed and source is not None:
                listed = rack_copies.may_take(state, swarm, source, piece, listed)
            if listed:
                found.append((piece, listed))
        return rng.choice(found) if found else (0, 0)

    patch.setattr(selection, "_search", any_found)
    # With few receivers the rarest pieces of each are asked for, which now are any.
    patch.setattr(Rarity, "rarest", lambda _, candidates: candidates)


def choose_at_random(patch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """The same at the seed, too."""
    choose_at_random_among_peers(patch, rng)
    # The rarest of all are those that only the seed has: it sends them first, in their order.
    patch.setattr(first_copies, "fresh_pieces", lambda swarm: swarm.members[SEED].have)
    patch.setattr(readers, "in_order", lambda _, pieces: any_bit(pieces, rng))


def makespan_s(scenario: Scenario) -> float:
    """When the last node was complete; all of them must be."""
    outcome = Simulation(scenario).run()
    assert len(outcome.completed_s) == scenario.nodes
    return outcome.completed_s[-1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_choice_in_place_of_rarest_first_comes_out_worse(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    scenario = replace(equal("choice", 30, 30), seed=seed)
    rarest_first_s = makespan_s(scenario)
    choose_at_random(monkeypatch, random.Random(seed))
    assert makespan_s(scenario) > 1.2 * rarest_first_s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_choice_among_the_peers_alone_comes_out_worse(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    scenario = replace(equal("choice", 30, 30), seed=seed)
    rarest_first_s = makespan_s(scenario)
    choose_at_random_among_peers(monkeypatch, random.Random(seed))
    # By 1 to 4 %: with the seed's first copies in order, the peers' choice decides the last pieces alone.
    assert makespan_s(scenario) > rarest_first_s
