"""`layercast-bench sim`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.simulator import suite
from benchmarks.simulator.limits import SEEDS, Limit, Verdict, judge, x_piece
from benchmarks.simulator.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_scenario_of_flags_prints_its_assumptions_and_keeps_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sim.json"
    assert main(["sim", "--nodes", "4", "--pieces", "8", "--seed", "5", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "node 1000 Mbit/s" in printed
    assert "1 ms round trip, 20 us of supernode service an event" in printed
    assert "pieces of up to 4 MiB" in printed
    kept = json.loads(file.read_text())
    assert (kept["nodes"], kept["pieces"], kept["size_bytes"]) == (4, 8, 32 << 20)
    scheduled = kept["modes"]["scheduled"]
    assert scheduled["makespan_s"] == pytest.approx(scheduled["x_piece"] * kept["bounds"]["piece_s"])
    assert scheduled["makespan_s"] >= scheduled["p99_s"] >= scheduled["p50_s"] >= scheduled["first_byte_p50_s"] > 0
    assert scheduled["origin_bytes"] == kept["size_bytes"]
    assert len(kept["simulation"]["trace_sha256"]) == 64


def test_every_flag_of_a_scenario_does_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "sim.json"
    flags = (
        "--nodes 8 --pieces 12 --layers 3 --parallel 2 --class 3:1gbit --class 1:250mbit --declared --racks 2"
        " --uplink-rate 500mbit --arrival poisson:50 --joiners 1 --churn 0.25:0s:1s --round-trip 2ms"
        " --origin-rate 2gbit --service 0.1ms"
    )
    assert main(["sim", *flags.split(), "--json", str(file)]) == 0
    kept = json.loads(file.read_text())
    assert len(kept["scenario"]["blobs"]) == 3
    assert kept["links"]["racks"] == 2
    assert (kept["links"]["round_trip_s"], kept["links"]["service_s"]) == (0.002, 0.0001)
    assert set(kept["bounds"]["classes"]) == {"1gbit", "250mbit"}
    assert kept["scenario"]["faults"]["churn_part"] == 0.25
    assert kept["modes"]["scheduled"]["errors"] == 0


def test_layers_of_many_sizes_are_cut_as_the_product_cuts_them(tmp_path: Path) -> None:
    file = tmp_path / "sim.json"
    words = "--nodes 2 --layers 5 --sizes 512KiB-8MiB --rate 100mbit"
    assert main(["sim", *words.split(), "--json", str(file)]) == 0
    kept = json.loads(file.read_text())
    assert sorted(kept["scenario"]["blobs"]) == [1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 23]
    assert kept["pieces"] == 2 + 4 + 8 + 16 + 32
    assert kept["modes"]["scheduled"]["errors"] == 0


def test_a_named_scenario_says_which_of_its_limits_are_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sim.json"
    assert main(["sim", "tiny", "--small", "--gate", "--json", str(file)]) == 0
    assert "limits" in capsys.readouterr().out
    limits = json.loads(file.read_text())["limits"]
    assert [limit["met"] for limit in limits] == [True] * len(limits)
    assert limits[0]["name"] == "last node after the origin's answer, s"


def test_only_with_gate_a_missed_limit_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = SCENARIOS["tiny"]
    never = Limit("never met", 0.0, lambda *_: [("", 1.0)])
    monkeypatch.setitem(SCENARIOS, "tiny", type(tiny)(tiny.about, tiny.full, tiny.small, (never,)))
    assert main(["sim", "tiny", "--small"]) == 0
    assert main(["sim", "tiny", "--small", "--gate"]) == 1


def test_a_limit_without_a_figure_is_not_met() -> None:
    assert not Verdict("nothing measured", None, 1.0).met


LAST = "last node / piece bound"


@pytest.mark.parametrize(
    ("figures", "met"),
    [
        ((1.06, 1.10, 1.09), {f"{LAST}, mean": True, LAST: True}),
        ((1.09, 1.10, 1.09), {f"{LAST}, mean": False, LAST: True}),
        ((1.01, 1.16, 1.01), {f"{LAST}, mean": True, LAST: False}),
        ((1.06, None, 1.06), {f"{LAST}, mean": False, LAST: False}),
    ],
)
def test_of_several_seeds_the_mean_and_the_worst_are_judged(
    figures: tuple[float | None, ...], met: dict[str, bool]
) -> None:
    verdicts = judge([x_piece(1.03, 1.15, 1.09)], [[[("", figure)]] for figure in figures], small=True)
    assert {verdict.name: verdict.met for verdict in verdicts} == met


def test_one_seed_has_no_mean() -> None:
    (verdict,) = judge([x_piece(1.03, 1.15, 1.09)], [[[("", 1.1)]]], small=True)
    assert (verdict.name, verdict.value, verdict.at_most) == (LAST, 1.1, 1.15)


def test_a_scenario_whose_mean_is_judged_runs_with_the_seeds_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = SCENARIOS["tiny"]
    limits = (Limit("the same", 1.0, lambda *_: [("", 1.0)], mean_small=1.0),)
    monkeypatch.setitem(SCENARIOS, "tiny", replace(tiny, limits=limits))
    result = suite.run_one("tiny", 5)
    assert result.problems == ()
    assert [verdict.name for verdict in result.verdicts] == ["the same, mean", "the same"]
    assert len(result.trace_hashes) == SEEDS
    monkeypatch.setitem(SCENARIOS, "tiny", replace(tiny, limits=()))
    assert result.trace_hashes[2:3] == suite.run_one("tiny", 7).trace_hashes


@pytest.fixture(scope="module")
def tracker() -> None:
    """What the interpreter starts with its first pool of processes, and keeps: there before leftovers are counted."""
    resource_tracker.ensure_running()


@pytest.mark.usefixtures("tracker")
def test_the_suite_runs_every_scenario_with_a_fixed_and_a_fresh_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "SCENARIOS", {"tiny": SCENARIOS["tiny"]})
    file = tmp_path / "suite.json"
    assert main(["sim", "--suite", "--seed", "77", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "--suite --seed 77" in printed
    assert "2 runs, 0 with something not reached" in printed
    assert [run["seed"] for run in json.loads(file.read_text())["runs"]] == [1, 77]


def test_the_list_tells_every_scenario_and_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in SCENARIOS)
    assert "cross-rack bytes / least <= 1.2" in printed


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "a SCENARIO (--list tells them), --nodes N"),
        (["nosuch"], "scenario nosuch: unknown; there are cold, fine"),
        (["cold", "--racks", "3"], "--racks: scenario cold has its own"),
        (["cold", "--seed", "x"], "--seed x: expected a whole number"),
        (["--nodes", "0"], "--nodes 0: expected at least 1"),
        (["--nodes", "20001"], "--nodes 20001: at most 20000"),
        (["--nodes", "many"], "--nodes many: expected a whole number"),
        (["--nodes", "2", "--rate", "0"], "--rate 0: expected at least"),
        (["--nodes", "2", "--size", "10XB"], "--size 10XB: expected a size"),
        (["--nodes", "2", "--size", "10", "--pieces", "11"], "--pieces 11: 10 bytes cannot be cut"),
        (["--nodes", "2", "--sizes", "1KB"], "--sizes 1KB: expected A-B"),
        (["--nodes", "2", "--sizes", "1KB-1MB", "--pieces", "3"], "--pieces: --sizes says how large"),
        (["--nodes", "2", "--size", "1TiB"], "--size 1TiB: more than"),
        (["--nodes", "2", "--layers", "126"], "--layers 126: more than the 125 pieces"),
        (["--nodes", "2", "--racks", "2"], "--racks 2: needs --uplink-rate"),
        (["--nodes", "2", "--class", "x"], "--class x: expected PARTS:RATE"),
        (["--nodes", "2", "--arrival", "now"], "--arrival now: expected all or poisson"),
        (["--nodes", "2", "--churn", "0.5:2s:1s"], "--churn 0.5:2s:1s: it ends before it begins"),
        (["--nodes", "2", "--slow", "0.5:0"], "--slow 0.5:0: the factor must be above 0"),
        (["--nodes", "2", "--corrupt", "2"], "part 2.0 of the nodes: between 0 and 1"),
        (["--nodes", "2", "--joiners", "2"], "joiners 2: fewer than the 2 nodes"),
        (["--nodes", "2", "--json", "/nowhere/sim.json"], "/nowhere/sim.json: no file can be written there"),
    ],
)
def test_bad_flags_get_one_line(flags: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", *flags]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
