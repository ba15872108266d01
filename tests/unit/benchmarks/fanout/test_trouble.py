"""Trouble in a fan-out: how it is asked for, when it begins, and that it always ends."""

from __future__ import annotations

import threading

import pytest

from benchmarks.fanout.trouble import Trouble, back_at_rate_s, happening
from benchmarks.results import Sample
from proto.errors import ConfigError


def test_kind_and_times_are_read() -> None:
    assert Trouble.parse("stop@20s+30s") == Trouble("stop", 20.0, 30.0)
    assert Trouble.parse("kill@1min") == Trouble("kill", 60.0, 0.0)


@pytest.mark.parametrize("text", ["flood@1s+1s", "stop", "stop@1s", "kill@1s+1s", "cut@+1s", "cores@x+1s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--trouble"):
        Trouble.parse(text)


def test_a_trouble_that_the_run_outlives_ends_at_its_time() -> None:
    calls: list[str] = []
    ended = threading.Event()
    with happening(Trouble("cut", 0.0, 0.0), lambda: calls.append("begin"), ended.set):
        assert ended.wait(60.0)
    assert calls == ["begin"]


def test_a_trouble_that_outlives_the_run_ends_with_it() -> None:
    began, calls = threading.Event(), list[str]()
    with happening(Trouble("cut", 0.0, 3600.0), began.set, lambda: calls.append("end")):
        assert began.wait(60.0)
    assert calls == ["end"]


def test_a_trouble_whose_time_never_comes_does_nothing() -> None:
    calls: list[str] = []
    with happening(Trouble("stop", 3600.0, 1.0), lambda: calls.append("begin"), lambda: calls.append("end")):
        pass
    assert calls == []


def samples(rates_bytes_s: list[int]) -> list[Sample]:
    """One a second, from 0 on, of nodes that received at these rates."""
    return [Sample(float(at_s), {"peer": sum(rates_bytes_s[:at_s])}, 0) for at_s in range(len(rates_bytes_s) + 1)]


def test_the_rate_is_back_when_nodes_receive_nearly_as_before_for_a_second() -> None:
    assert back_at_rate_s(samples([100] * 12 + [0] * 5 + [20, 60, 95, 100]), 12.0, 17.0) == 3.0


def test_a_rate_that_does_not_come_back_has_no_time() -> None:
    assert back_at_rate_s(samples([100] * 12 + [0] * 5 + [20, 60, 80, 80]), 12.0, 17.0) is None


def test_where_nothing_was_received_before_nothing_can_be_back() -> None:
    assert back_at_rate_s(samples([0] * 12 + [100] * 5), 12.0, 13.0) is None
