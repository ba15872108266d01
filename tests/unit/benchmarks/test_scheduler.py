"""`layercast-bench scheduler`: a small swarm, the same one every time, and arguments that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.scheduler import Plain
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
    swarm = ColdSwarm(Plain(Scheduler(seed=1, epoch=1)), 1, 8)
    swarm.open()
    swarm.run(8)
    assert swarm.bound_s <= swarm.delivered_at <= 1.1 * swarm.bound_s


def test_a_swarm_runs_the_same_way_every_time_and_ends_sound() -> None:
    ends = set()
    for _ in range(2):
        scheduler = Scheduler(seed=3, epoch=1)
        swarm = ColdSwarm(Plain(scheduler), PEERS, PIECES)
        swarm.open()
        swarm.run(PEERS * PIECES)
        invariants.check(scheduler)
        ends.add(swarm.delivered_at)
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--peers", "0"], "from 1 to 20000"),
        (["--peers", "many"], "from 1 to 20000"),
        (["--peers", "20001"], "from 1 to 20000"),
        (["--pieces", "-1"], "from 1 to 65536"),
        (["--pieces", "9" * 5000], "from 1 to 65536"),
        (["--seed", "x"], "invalid int"),
        (["--what"], "unrecognized"),
    ],
)
def test_a_bad_argument_gets_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scheduler", *arguments])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert complaint in shown
    assert shown.count("\n") == 1


def test_figures_that_could_not_be_kept_are_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheduler", "--json", "/no/such/folder/figures.json"]) == 1
    shown = capsys.readouterr().err
    assert "--json" in shown
    assert shown.count("\n") == 1
