"""The part of the size that native pulls."""

from __future__ import annotations

from benchmarks.fanout.modes import native_fraction


def test_native_pulls_everything_unless_that_takes_too_long() -> None:
    assert native_fraction(200.0, 300.0) == 1.0
    assert native_fraction(600.0, 300.0) == 0.5
