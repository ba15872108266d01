"""What masks of many nodes make worth while: looking at an end of a mask, noting pieces that none with room has."""

from __future__ import annotations

import random

from benchmarks.scheduler import Plain
from benchmarks.scheduler_swarm import ColdSwarm
from supernode.scheduler import invariants, policy
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings

LENGTHS = (1, 2, 59, 60, 61, 700, 768, 769, 900, 5000)


def masks(rng: random.Random) -> list[int]:
    """Dense ones, sparse ones and those with one bit or two, of each length."""
    found = []
    for length in LENGTHS:
        top = 1 << (length - 1)
        found += [top, top | 1, (1 << length) - 1, top | rng.getrandbits(length)]
        found += [top | 1 << rng.randrange(length) | 1 << rng.randrange(length) for _ in range(20)]
    return found


def test_some_bit_of_a_mask_is_the_next_at_or_above_a_random_place() -> None:
    for mask in masks(random.Random(1)):
        for seed in range(10):
            found = policy.any_bit(mask, random.Random(seed))
            place = int(random.Random(seed).random() * mask.bit_length()) if mask.bit_count() > 1 else 0
            assert found == next(bit for bit in range(place, mask.bit_length()) if mask >> bit & 1)


def test_a_single_bit_and_a_crowd_are_told_of_masks_of_every_length() -> None:
    for mask in masks(random.Random(2)):
        assert policy.is_one(mask) == (mask.bit_count() == 1)
        for count in (1, 2, 16, 300, 768, 2500):
            assert policy.at_most(mask, count) == (mask.bit_count() <= count)


def noted_by(many_nodes: int, peers: int, pieces: int) -> tuple[float, bool]:
    """How long a cold swarm takes, and whether any piece was ever noted; the rules hold meanwhile."""
    scheduler = Scheduler(seed=1, epoch=1, settings=SchedulerSettings(many_nodes=many_nodes))
    swarm = ColdSwarm(Plain(scheduler), peers, pieces)
    swarm.open()
    noted = False
    for part in range(1, 21):
        swarm.run(peers * pieces * part // 20)
        invariants.check(scheduler)
        (inside,) = scheduler.inspect().swarms.values()
        noted = noted or bool(inside.unsourced or inside.unwanted)
    return swarm.delivered_at / swarm.bound_s, noted


def test_a_swarm_that_notes_pieces_without_a_source_is_as_quick_as_one_that_looks_again() -> None:
    looking, none = noted_by(2000, 60, 40)
    noting, some = noted_by(0, 60, 40)
    assert not none
    assert some
    assert noting <= 1.03 * looking
