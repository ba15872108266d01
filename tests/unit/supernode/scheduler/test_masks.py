"""Masks of many nodes: any bit, a single bit and a crowd are told by looking at an end of the mask."""

from __future__ import annotations

import random

from supernode.scheduler import masks

LENGTHS = (1, 2, 59, 60, 61, 700, 768, 769, 900, 5000)


def some_masks(rng: random.Random) -> list[int]:
    """Dense ones, sparse ones and those with one bit or two, of each length."""
    found = []
    for length in LENGTHS:
        top = 1 << (length - 1)
        found += [top, top | 1, (1 << length) - 1, top | rng.getrandbits(length)]
        found += [top | 1 << rng.randrange(length) | 1 << rng.randrange(length) for _ in range(20)]
    return found


def test_some_bit_of_a_mask_is_the_next_at_or_above_a_random_place() -> None:
    for mask in some_masks(random.Random(1)):
        for seed in range(10):
            found = masks.any_bit(mask, random.Random(seed))
            place = int(random.Random(seed).random() * mask.bit_length()) if mask.bit_count() > 1 else 0
            assert found == next(bit for bit in range(place, mask.bit_length()) if mask >> bit & 1)


def test_a_single_bit_and_a_crowd_are_told_of_masks_of_every_length() -> None:
    for mask in some_masks(random.Random(2)):
        assert masks.is_one(mask) == (mask.bit_count() == 1)
        for count in (1, 2, 16, 300, 768, 2500):
            assert masks.at_most(mask, count) == (mask.bit_count() <= count)
