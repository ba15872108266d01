"""Patience follows what was measured, doubles where it was too short, and has limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.round_trip import DEVIATIONS_MIN_S, FIRST_S, PATIENCE_MAX_S, RoundTrip


def test_before_anything_is_measured_it_is_a_guess() -> None:
    assert RoundTrip().patience_s == FIRST_S


def test_the_first_measurement_counts_three_times_and_equal_ones_wear_that_off() -> None:
    found = RoundTrip()
    found.measure(0.2)
    assert found.patience_s == pytest.approx(0.6)
    for _ in range(100):
        found.measure(0.2)
    assert found.patience_s == pytest.approx(0.2 + DEVIATIONS_MIN_S)


def test_what_varies_is_given_four_deviations() -> None:
    found = RoundTrip()
    for step in range(200):
        found.measure(0.1 if step % 2 else 0.3)
    assert 0.5 < found.patience_s < 0.7


def test_too_short_is_doubled_until_it_is_measured_again() -> None:
    found = RoundTrip()
    found.measure(0.1)
    usual_s = found.patience_s
    found.missed()
    found.missed()
    assert found.patience_s == pytest.approx(4 * usual_s)
    found.measure(0.1)
    assert found.patience_s <= usual_s


@given(st.lists(st.one_of(st.none(), st.floats(0.0, 100.0))))
def test_it_stays_within_its_limits(samples: list[float | None]) -> None:
    found = RoundTrip()
    for sample_s in samples:
        if sample_s is None:
            found.missed()
        else:
            found.measure(sample_s)
        assert DEVIATIONS_MIN_S <= found.patience_s <= PATIENCE_MAX_S
