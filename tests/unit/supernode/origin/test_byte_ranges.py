"""Which bytes are asked for next, and how many streams ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proto.pieces import MIB, PieceLayout
from supernode.origin.byte_ranges import Ramp, RangeBook, WindowSettings

SMALL = WindowSettings(first_bytes=1000, trial_bytes=500, measure_bytes=100, measure_s=1.0, align_bytes=64)


@given(st.integers(1, 200), st.integers(0), st.lists(st.integers(1, 5000), max_size=50))
def test_every_missing_byte_is_taken_once(count: int, bits: int, wishes: list[int]) -> None:
    layout = PieceLayout(count * 64 - 7, 64)
    missing = layout.byte_ranges(bits & layout.full_mask)
    book = RangeBook(missing, align_bytes=64)
    taken = [window for wish in wishes if (window := book.take(wish)) is not None]
    taken += book.take_all()
    assert all(start % 64 == 0 for start, _ in taken)
    flat = [byte for start, end in sorted(taken) for byte in range(start, end)]
    assert flat == [byte for start, end in missing for byte in range(start, end)]


def test_windows_are_adjacent_and_end_at_whole_pieces() -> None:
    book = RangeBook([(0, 100 * MIB)], align_bytes=16 * MIB)
    assert [book.take(32 * MIB) for _ in range(5)] == [
        (0, 32 * MIB),
        (32 * MIB, 64 * MIB),
        (64 * MIB, 96 * MIB),
        (96 * MIB, 100 * MIB),
        None,
    ]


def test_what_is_given_back_is_taken_first_and_up_to_the_next_border() -> None:
    book = RangeBook([(0, 640)], align_bytes=64)
    assert book.take(256) == (0, 256)
    book.give_back(100, 256)
    book.give_back(256, 256)
    assert book.pending_bytes == 540
    assert book.take(10) == (100, 128)


def test_a_second_stream_is_tried_after_one_measurement() -> None:
    ramp = Ramp(SMALL)
    ramp.delivered(1000, now=0.0)
    ramp.delivered(1000, now=0.5)
    assert ramp.target == 1
    ramp.delivered(1000, now=1.0)
    assert ramp.target == 2


def test_a_stream_that_makes_nothing_faster_is_given_up_for_good() -> None:
    ramp = Ramp(SMALL)
    ramp.delivered(0, now=0.0)
    ramp.delivered(1000, now=1.0)
    ramp.delivered(100_000, now=2.0)  # before the second stream has its first bytes
    ramp.joined(now=3.0)
    ramp.delivered(1100, now=4.0)
    assert ramp.target == 1
    ramp.delivered(100_000, now=6.0)
    assert ramp.target == 1


def test_streams_are_added_while_each_pays_up_to_four() -> None:
    ramp = Ramp(SMALL)
    ramp.delivered(0, now=0.0)
    now = 0.0
    for streams in range(1, 8):
        ramp.joined(now)
        now += 1.0
        ramp.delivered(1000 * min(4, streams), now)
    assert ramp.target == 4


def test_a_single_stream_that_stays_alone_asks_for_more_at_once() -> None:
    ramp = Ramp(SMALL)
    assert ramp.window_bytes(100_000, first=True, trial=False) == 1000
    assert ramp.window_bytes(100_000, first=False, trial=False) == 50_000
    ramp.settle(1)
    assert ramp.window_bytes(100_000, first=False, trial=False) == 100_000
