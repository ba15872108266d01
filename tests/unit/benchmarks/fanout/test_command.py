"""What a run is held to."""

from __future__ import annotations

from benchmarks.bounds import bounds
from benchmarks.fanout.command import exceeded
from benchmarks.report import Report
from benchmarks.results import ModeRun, NodeTimes
from benchmarks.scenario import equal_links

MIB = 1 << 20


def test_the_gate_is_about_the_scheduled_mode_and_the_piece_bound() -> None:
    scenario = equal_links(1, (MIB,), 1e6)
    limits = bounds(scenario)
    node = NodeTimes(0, "node", 0.0, 0.1, 2 * limits.piece_s)
    report = Report(scenario, limits, [ModeRun(mode, (node,), (), MIB, 1, 0) for mode in ("native", "scheduled")])
    assert exceeded(2.1, report) == []
    assert exceeded(None, report) == []
    assert exceeded(1.9, report) == ["scheduled: 2.000 times the piece bound, at most 1.9"]
