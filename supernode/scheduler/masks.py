"""Masks as sets: any bit, a single bit, a crowd, told without a look at the whole of a long mask. Pure arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

# Any look at the whole of a mask longer than this is as dear as a copy of it; mostly one of its ends tells, of which so
# many bits are looked at.
_LONG_BITS: Final = 768
_NEAR_BITS: Final = 60
_NEAR: Final = (1 << _NEAR_BITS) - 1


def any_bit(mask: int, rng: random.Random) -> int:
    """Index of some set bit of a non-zero mask: the next one at or above a random place."""
    if is_one(mask):
        return mask.bit_length() - 1
    length = mask.bit_length()
    shift = int(rng.random() * length)
    above = mask >> shift
    if length > _LONG_BITS:
        # Mostly the next bit is near.
        above = above & _NEAR or above
    return shift + (above & -above).bit_length() - 1


def is_one(mask: int) -> bool:
    """Whether a single bit of a non-zero mask is set."""
    length = mask.bit_length()
    if length > _LONG_BITS:
        top = mask >> (length - _NEAR_BITS)
        if top & (top - 1):
            return False
    return not mask & (mask - 1)


def at_most(mask: int, count: int) -> bool:
    """Whether so many bits or fewer are set."""
    length = mask.bit_length()
    if length > _LONG_BITS and (mask >> (length - _LONG_BITS)).bit_count() > count:
        return False
    return mask.bit_count() <= count


def lowest(mask: int) -> int:
    """Index of the lowest set bit of a non-zero mask."""
    return (mask & -mask).bit_length() - 1
