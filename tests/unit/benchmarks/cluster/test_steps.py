"""Measuring steps: each has its own time alone, and the kernel's part of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.cluster.steps import Cost, Steps
from benchmarks.fanout.step_table import read_steps

if TYPE_CHECKING:
    from pathlib import Path


def _work(times: int) -> int:
    return sum(range(times))


def test_a_step_counts_without_the_steps_within_it() -> None:
    steps = Steps()
    inner = steps.step("2 inner", _work)
    outer = steps.step("1 outer", lambda: inner(2_000_000))
    assert outer() == _work(2_000_000)
    assert (steps.costs["1 outer"].calls, steps.costs["2 inner"].calls) == (1, 1)
    assert steps.costs["1 outer"].cpu_s < steps.costs["2 inner"].cpu_s


def test_what_the_kernel_does_is_part_of_the_step_around_it() -> None:
    steps = Steps()
    call = steps.kernel(_work)
    steps.step("1 all", lambda: call(2_000_000))()
    cost = steps.costs["1 all"]
    assert 0 < cost.kernel_s <= cost.cpu_s


def test_processes_add_up_to_what_a_piece_costs(tmp_path: Path) -> None:
    steps = Steps(costs={"3 hashed": Cost(calls=8, cpu_s=0.016, kernel_s=0.004, sleeps=4)})
    for node in range(2):
        steps.write(tmp_path / f"node-{node}.log.steps")
    (tmp_path / "supernode.steps").write_text(json.dumps({"steps": {}, "whole": [0.01, 0.02, 10]}))
    rows = {(row.place, row.step): row for row in read_steps(tmp_path, pieces=16)}
    hashed = rows["node", "3 hashed"]
    assert (hashed.calls, hashed.user_ms, hashed.system_ms, hashed.sleeps) == (1.0, 1.5, 0.5, 0.5)
    assert rows["supernode", "all"].system_ms == 1.25
