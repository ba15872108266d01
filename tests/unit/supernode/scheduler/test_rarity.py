"""Levels of rarity are exact where it matters and monotonic everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supernode.scheduler.rarity import Rarity, level_of


def test_levels_are_exact_up_to_32_copies_and_eight_an_octave_beyond() -> None:
    assert [level_of(copies) for copies in range(33)] == list(range(33))
    assert level_of(63) == 39
    assert level_of(64) == 40
    assert level_of(10_000) < 32 + 8 * 9


@given(st.integers(0, 20_000))
def test_more_copies_are_never_on_a_lower_level(copies: int) -> None:
    assert level_of(copies) <= level_of(copies + 1) <= level_of(copies) + 1


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=300))
def test_levels_order_pieces_by_count(changes: list[tuple[int, bool]]) -> None:
    rarity = Rarity(8)
    counts = [0] * 8
    for piece, more in changes:
        if more or not counts[piece]:
            rarity.add(piece)
            counts[piece] += 1
        else:
            rarity.remove(piece)
            counts[piece] -= 1
    seen = 0
    last = -1
    for level in filter(None, rarity.levels):
        of_level = [level_of(counts[piece]) for piece in range(8) if level >> piece & 1]
        assert len(set(of_level)) == 1
        assert of_level[0] > last
        last = of_level[0]
        seen |= level
    assert seen == 0b11111111
