"""The part of the size that native pulls, and runs in which nodes shared nothing."""

from __future__ import annotations

from benchmarks.fanout.modes import native_fraction, nothing_shared
from benchmarks.scenario import equal_links
from proto.pieces import MIB


def test_native_pulls_everything_unless_that_takes_too_long() -> None:
    assert native_fraction(200.0, 300.0) == 1.0
    assert native_fraction(600.0, 300.0) == 0.5


def test_nodes_that_sent_one_another_nothing_are_a_problem() -> None:
    scenario = equal_links(3, (8 * MIB,), 1e6)

    assert nothing_shared(scenario, 0)[0].startswith("3 nodes sent one another nothing")
    assert nothing_shared(scenario, 1) == []


def test_two_nodes_and_tiny_blobs_may_have_all_from_the_supernode() -> None:
    assert nothing_shared(equal_links(2, (8 * MIB,), 1e6), 0) == []
    assert nothing_shared(equal_links(20, (500, 1000), 1e6), 0) == []
