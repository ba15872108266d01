"""When an origin in trouble is asked again, and when it is given up."""

from __future__ import annotations

import pytest

from peer.registry.retry import NODE_RETRY, Retry, RetrySettings, asked_pause_s

SETTINGS = RetrySettings()


def retry(settings: RetrySettings = SETTINGS, jitter: float = 1.0) -> Retry:
    return Retry(settings, lambda: jitter, now=100.0)


def test_each_failure_waits_twice_as_long_up_to_a_limit() -> None:
    patience = retry(RetrySettings(without_progress_s=1e9))
    assert [patience.delay_s(100.0) for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_halves_a_wait_at_most() -> None:
    assert retry(jitter=0.0).delay_s(100.0) == 0.125


def test_failures_at_once_are_not_enough_to_give_up() -> None:
    patience = retry()
    assert all(patience.delay_s(104.9) is not None for _ in range(20))
    assert patience.delay_s(105.0) is None


def test_a_long_silence_is_not_enough_to_give_up() -> None:
    patience = retry()
    assert patience.delay_s(110.0) is not None
    assert patience.delay_s(120.0) is not None
    assert patience.delay_s(130.0) is None


def test_progress_begins_anew() -> None:
    patience = retry()
    for _ in range(3):
        patience.delay_s(104.0)
    patience.received(SETTINGS.progress_bytes, 110.0)
    assert patience.delay_s(114.0) == 0.25


def test_a_trickle_is_no_progress() -> None:
    patience = retry()
    assert [patience.delay_s(104.0) for _ in range(2)] == [0.25, 0.5]
    patience.received(1, 110.0)
    assert patience.delay_s(114.0) is None


def test_after_a_very_long_silence_one_failure_is_enough() -> None:
    assert retry().delay_s(100.0 + SETTINGS.patience_s) is None


def test_what_was_no_doing_of_the_origins_does_not_count() -> None:
    patience = retry()
    patience.begin_anew(100.0 + SETTINGS.patience_s)
    assert patience.delay_s(100.0 + SETTINGS.patience_s) == 0.25


def test_retry_after_is_waited_for() -> None:
    assert retry().delay_s(100.0, 7.0) == 7.0


@pytest.mark.parametrize(("settings", "longest_s"), [(SETTINGS, 20.0), (NODE_RETRY, 10.0)])
def test_an_origin_that_wants_a_longer_pause_is_given_up(settings: RetrySettings, longest_s: float) -> None:
    assert retry(settings).delay_s(100.0, longest_s) is not None
    assert retry(settings).delay_s(100.0, longest_s + 0.1) is None


@pytest.mark.parametrize(
    ("lines", "wanted_s"),
    [
        ({}, None),
        ({"Retry-After": "7", "RateLimit-Reset": "50"}, 7.0),
        ({"RateLimit-Reset": "50"}, 50.0),
        ({"RateLimit-Reset": "50;w=60"}, 50.0),
        ({"RateLimit": '"default";r=0;t=30'}, 30.0),
        ({"RateLimit": "limit=100, remaining=0, reset=20"}, 20.0),
        ({"RateLimit": '"default";r=0'}, None),
        ({"RateLimit-Reset": "1780000000"}, None),
    ],
)
def test_a_pause_is_asked_for_by_several_header_lines(lines: dict[str, str], wanted_s: float | None) -> None:
    assert asked_pause_s(lines.get) == wanted_s
