"""Pace: which transfers are slow because of their receivers, and which do not get on."""

from __future__ import annotations

from peer.transport.pace import FLOOR_BYTES_S, SLOW_BYTES_S, SLOW_WINDOW_S, Pace, Progress

INF = float("inf")
WINDOW_S = 10.0


def after(rate_bytes_s: float, seconds: float, full_part: float) -> Progress:
    return Progress(int(rate_bytes_s * seconds), full_part * seconds)


def test_a_receiver_that_makes_its_sender_wait_is_slow() -> None:
    pace = Pace(Progress(0, 0.0), 0.0, WINDOW_S)
    pace.take(after(SLOW_BYTES_S / 2, SLOW_WINDOW_S, 0.9), SLOW_WINDOW_S, INF)
    assert (pace.slow, pace.stalled) == (True, False)


def test_a_transfer_over_a_slow_link_is_not() -> None:
    pace = Pace(Progress(0, 0.0), 0.0, WINDOW_S)
    pace.take(after(SLOW_BYTES_S / 2, SLOW_WINDOW_S, 0.1), SLOW_WINDOW_S, INF)
    assert not pace.slow


def test_nobody_is_slow_for_our_own_limit() -> None:
    pace = Pace(Progress(0, 0.0), 0.0, WINDOW_S)
    pace.take(after(900, WINDOW_S, 0.9), WINDOW_S, 800.0)
    assert (pace.slow, pace.stalled) == (False, False)


def test_it_counts_as_slow_only_after_a_while_and_recovers() -> None:
    pace = Pace(Progress(0, 0.0), 0.0, WINDOW_S)
    slow = []
    for rate, seconds in ((0, SLOW_WINDOW_S / 2), (0, SLOW_WINDOW_S), (10 * SLOW_BYTES_S, 2 * SLOW_WINDOW_S)):
        pace.take(after(rate, seconds, 1.0), seconds, INF)
        slow.append(pace.slow)
    assert slow == [False, True, False]


def test_a_transfer_below_the_floor_is_stalled_whatever_it_did_before() -> None:
    pace = Pace(Progress(0, 0.0), 0.0, WINDOW_S)
    pace.take(after(100 * FLOOR_BYTES_S, WINDOW_S, 0.0), WINDOW_S, INF)
    assert not pace.stalled
    trickled = 100 * FLOOR_BYTES_S * WINDOW_S + FLOOR_BYTES_S / 2 * WINDOW_S
    pace.take(Progress(int(trickled), 0.0), 2 * WINDOW_S, INF)
    assert pace.stalled
