"""Whom the tracker names to whom: few neighbours each, in a graph that hangs together, also when nodes leave."""

from __future__ import annotations

import random

import pytest

from proto.wire.messages import SEED_NODE
from supernode.torrent.neighbours import CHOSEN, SEED_NEIGHBOURS, Neighbours

NODES = 200
# What a slow link's queue and a few transfers at a time bear; see the module.
FEW = 12


def swarm_of(count: int, seed: int, *, at_once: bool) -> Neighbours:
    """All there before the first is told of others, or one after the other."""
    neighbours = Neighbours(random.Random(seed))
    for node in range(1, count + 1):
        others = range(count + 1) if at_once else range(node)
        neighbours.choose(node, others, CHOSEN)
    return neighbours


def reached(neighbours: Neighbours, start: int, nodes: set[int]) -> dict[int, int]:
    """Hops from there to every node that a way of these leads to."""
    hops, front = {start: 0}, [start]
    while front:
        front = [
            other
            for node in front
            for other in sorted(neighbours.of(node) & nodes)
            if other not in hops and hops.setdefault(other, hops[node] + 1)
        ]
    return hops


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_everybody_has_few_neighbours_and_is_few_hops_from_the_seed(seed: int, at_once: bool) -> None:
    neighbours = swarm_of(NODES, seed, at_once=at_once)
    degrees = [len(neighbours.of(node)) for node in range(1, NODES + 1)]
    assert min(degrees) >= CHOSEN
    assert max(degrees) <= FEW
    assert len(neighbours.of(SEED_NODE)) == SEED_NEIGHBOURS
    hops = reached(neighbours, SEED_NODE, set(range(NODES + 1)))
    assert len(hops) == NODES + 1
    assert max(hops.values()) <= 8


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_small_swarm_has_no_stranger_to_the_seed_that_knows_nobody(count: int) -> None:
    neighbours = swarm_of(count, 1, at_once=True)
    assert len(reached(neighbours, SEED_NODE, set(range(count + 1)))) == count + 1


def test_neighbours_are_mutual() -> None:
    neighbours = swarm_of(20, 3, at_once=True)
    for node in range(21):
        for other in neighbours.of(node):
            assert node in neighbours.of(other)
            assert node != other


@pytest.mark.parametrize("seed", range(5))
def test_who_is_left_alone_gets_others(seed: int) -> None:
    neighbours = swarm_of(NODES, seed, at_once=True)
    left = [SEED_NODE, *random.Random(seed).sample(range(1, NODES + 1), NODES // 3)]
    neighbours.keep(left, [SEED_NODE])
    for node in left[1:]:
        neighbours.choose(node, left, neighbours.lacks(node))
    assert all(neighbours.of(node) <= set(left) for node in left)
    assert all(len(neighbours.of(node)) >= CHOSEN for node in left[1:])
    assert len(reached(neighbours, SEED_NODE, set(left))) == len(left)


def test_a_seed_whose_neighbours_are_complete_serves_others() -> None:
    neighbours = swarm_of(SEED_NEIGHBOURS, 1, at_once=True)
    complete = [SEED_NODE, *range(1, SEED_NEIGHBOURS + 1)]
    newcomer = SEED_NEIGHBOURS + 1
    neighbours.keep([*complete, newcomer], complete)
    assert neighbours.of(SEED_NODE) == frozenset()
    assert SEED_NODE in neighbours.choose(newcomer, complete, 1)


def test_who_is_helped_again_and_again_has_an_end_of_neighbours() -> None:
    neighbours = swarm_of(NODES, 1, at_once=True)
    for _ in range(NODES):
        neighbours.choose(1, range(NODES + 1), 1)
    assert len(neighbours.of(1)) <= 16


def test_the_same_choices_from_the_same_seed() -> None:
    first, second = (swarm_of(50, 7, at_once=True) for _ in range(2))
    assert [first.of(node) for node in range(51)] == [second.of(node) for node in range(51)]
    assert [first.of(node) for node in range(51)] != [swarm_of(50, 8, at_once=True).of(node) for node in range(51)]
