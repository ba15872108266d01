"""`layercast-bench scheduler`: a small swarm, the same one every time, and arguments that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.scheduler_swarm import ColdSwarm
from supernode.scheduler import invariants
from supernode.scheduler.machine import Scheduler

if TYPE_CHECKING:
    from pathlib import Path

PEERS = 12
PIECES = 32


def test_a_small_run_prints_and_keeps_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "figures.json"
    assert main(["scheduler", "--peers", str(PEERS), "--pieces", str(PIECES), "--json", str(kept)]) == 0
    figures = json.loads(kept.read_text())
    assert figures["leases"] >= PEERS * PIECES
    assert figures["leases_per_s"] == pytest.approx(figures["leases"] / figures["scheduler_cpu_s"])
    assert 0 < figures["handle_p50_s"] <= figures["handle_p99_s"] <= figures["handle_max_s"]
    assert figures["bytes_per_peer_and_piece"] > 0
    assert 1.0 <= figures["x_piece"] < 1.3
    assert "leases/s on one core" in capsys.readouterr().out


def test_a_profile_names_the_scheduler_s_functions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheduler", "--peers", "2", "--pieces", "4", "--profile"]) == 0
    assert "(handle)" in capsys.readouterr().out


def test_one_peer_alone_takes_what_the_origin_sends() -> None:
    swarm = ColdSwarm(Scheduler(seed=1, epoch=1), 1, 8)
    swarm.open()
    swarm.run(8)
    assert swarm.bound_s <= swarm.delivered_at <= 1.1 * swarm.bound_s


def test_a_swarm_runs_the_same_way_every_time_and_ends_sound() -> None:
    ends = set()
    for _ in range(2):
        scheduler = Scheduler(seed=3, epoch=1)
        swarm = ColdSwarm(scheduler, PEERS, PIECES)
        swarm.open()
        swarm.run(PEERS * PIECES)
        invariants.check(scheduler)
        ends.add(swarm.delivered_at)
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--peers 0", "--peers 0: expected at least 1"),
        ("--peers many", "--peers many: expected a whole number"),
        ("--peers 20001", "--peers 20001: at most 20000"),
        ("--pieces 65537", "--pieces 65537: at most 65536"),
        ("--seed x", "--seed x: expected a whole number"),
        ("--json /no/such/folder/figures.json", "its folder must exist"),
    ],
)
def test_what_makes_no_sense_gets_one_line(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheduler", *words.split()]) == 1
    shown = capsys.readouterr().err
    assert complaint in shown
    assert shown.count("\n") == 1
