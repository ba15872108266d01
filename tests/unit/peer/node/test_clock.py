"""By whose clock tickets end: the supernode's, and while it is away by one that stands still for a time."""

from __future__ import annotations

import logging

import pytest

from peer.node.clock import AWAY_S, SupernodeClock

HOUR_S = 3600.0


class Ours:
    """This machine's clock."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def ours() -> Ours:
    return Ours()


def test_until_it_is_told_it_is_our_own(ours: Ours) -> None:
    assert SupernodeClock(ours).now() == ours.now_s


@pytest.mark.parametrize("hours", [-3, 3])
def test_it_is_the_supernode_s_and_a_large_difference_is_named(
    ours: Ours, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SupernodeClock(ours)
    with caplog.at_level(logging.WARNING):
        clock.set(ours.now_s + hours * HOUR_S)
    ours.now_s += 60.0
    assert clock.now() == ours.now_s + hours * HOUR_S
    side = "behind" if hours > 0 else "ahead of"
    assert f"clock_differs this machine's clock is 3.0 h {side} the supernode's" in caplog.text


def test_a_small_difference_is_not_worth_a_word(ours: Ours, caplog: pytest.LogCaptureFixture) -> None:
    SupernodeClock(ours).set(ours.now_s + 10.0)
    assert caplog.text == ""


def test_while_the_supernode_is_away_tickets_stay_good_for_a_time(ours: Ours) -> None:
    clock = SupernodeClock(ours)
    lost_s = ours.now_s
    clock.lost()
    ours.now_s += AWAY_S
    assert clock.now() == lost_s
    ours.now_s += 100.0
    assert clock.now() == lost_s + 100.0


def test_with_a_session_it_goes_on_at_once(ours: Ours) -> None:
    clock = SupernodeClock(ours)
    clock.lost()
    ours.now_s += 50.0
    clock.resume()
    assert clock.now() == ours.now_s
