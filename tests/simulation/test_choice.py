"""The scheduler's choice of pieces earns its keep: a choice that looks at no counts of copies takes longer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulator.scenarios import equal
from benchmarks.simulator.world import World
from proto.pieces import indices
from supernode.scheduler import policy, receiver_selection, source_selection
from supernode.scheduler.contract import SEED
from supernode.scheduler.rarity import Rarity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scenario import Scenario
    from supernode.scheduler.leases import Core


def choose_at_random_among_peers(patch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """Any piece that the one has and the other lacks, where a peer is the source."""

    def any_matched(_core: Core, _rarity: Rarity, pieces: int, nodes_of: list[int], nodes: int) -> int | None:
        found = [piece for piece in indices(pieces) if nodes_of[piece] & nodes]
        return rng.choice(found) if found else None

    def in_any_order(_: Rarity, candidates: int) -> Iterator[int]:
        pieces = list(indices(candidates))
        rng.shuffle(pieces)
        return (1 << piece for piece in pieces)

    patch.setattr(receiver_selection, "_matched", any_matched)
    # The quick way goes by the levels of rarity itself; the slow one asks for the rarest, which now is any.
    patch.setattr(source_selection, "_from_member_tries", source_selection._from_member_each)
    patch.setattr(Rarity, "rarest_first", in_any_order)
    patch.setattr(Rarity, "rarest", lambda _, candidates: candidates)


def choose_at_random(patch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """The same at the seed, too."""
    choose_at_random_among_peers(patch, rng)
    # The rarest of all are those that only the seed has: it sends them first, in their order.
    patch.setattr(policy, "fresh_pieces", lambda swarm: swarm.members[SEED].have)
    patch.setattr(policy, "in_order", lambda _, pieces: policy.any_bit(pieces, rng))


def makespan_s(scenario: Scenario) -> float:
    """When the last node was complete; all of them must be."""
    outcome = World(scenario).run()
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
