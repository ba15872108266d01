"""The least time that a swarm's links allow."""

from __future__ import annotations

import pytest

from supernode.console.bound import least_s


def test_all_uplinks_together_have_to_bring_what_all_nodes_want() -> None:
    assert least_s(4000, 1000, [100.0, 100.0, 100.0, 100.0], [1000.0] * 4, seed_alone=0.0) == pytest.approx(10.0)


def test_the_slowest_downlink_has_to_take_the_blob() -> None:
    assert least_s(2000, 1000, [1000.0, 1000.0], [1000.0, 50.0], seed_alone=0.0) == pytest.approx(20.0)


def test_the_first_copy_has_to_leave_the_supernode_where_nobody_had_any() -> None:
    assert least_s(2000, 1000, [10.0, 1000.0, 1000.0], [1000.0], seed_alone=10.0) == pytest.approx(100.0)


def test_a_link_that_is_not_known_counts_as_quick_as_the_quickest() -> None:
    assert least_s(4000, 1000, [200.0, 0.0], [0.0], seed_alone=0.0) == pytest.approx(10.0)


def test_nothing_is_said_where_no_link_is_known() -> None:
    assert least_s(4000, 1000, [0.0], [0.0], seed_alone=0.0) is None
