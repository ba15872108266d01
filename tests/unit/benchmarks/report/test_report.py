"""Reports of runs: the JSON document's keys and figures, what tables leave out, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import pytest

from benchmarks.bounds import bounds
from benchmarks.report import Outputs, Report, document, print_report
from benchmarks.results import ModeRun, NodeTimes, Sample
from benchmarks.scenario import Arrivals, Faults, NodeClass, equal_links
from proto.errors import ConfigError
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.results import Mode
    from benchmarks.scenario import Scenario

NODES = 4
SIZE = 8 * MIB
# Eight pieces of a second each: fluid 8 s, pieces 8 + 1 + 2 s, native 32 s.
SCENARIO = replace(equal_links(NODES, (SIZE,), float(MIB)), piece_size_bytes=MIB)


def mode_run(mode: Mode, completed_s: Sequence[float | None]) -> ModeRun:
    """Nodes that asked at 0 and were complete at these times, and nothing that not every run can measure."""
    nodes = tuple(NodeTimes(node, "node", 0.0, 1.0, at_s) for node, at_s in enumerate(completed_s))
    samples = (Sample(0.0, {}, 0), Sample(12.0, {"seed": SIZE, "peer": 3 * SIZE}, NODES))
    return ModeRun(mode, nodes, samples, origin_bytes=SIZE, origin_gets=1, origin_repeated_bytes=0)


NATIVE = mode_run("native", (32.0, 34.0, 36.0, 40.0))
SCHEDULED = mode_run("scheduled", (11.0, 11.5, 11.8, 12.0))
FULL = replace(
    SCHEDULED,
    origin_first_byte_s=0.25,
    seed_bytes=SIZE,
    peer_bytes=3 * SIZE,
    control_bytes=1000,
    cpu_s_per_gib=9.0,
    cpu_busy=0.5,
    cpu_network=0.1,
    node_rss_mib=40.0,
    node_peak_mib=70.0,
    supernode_rss_mib=60.0,
    more={"trace_sha256": "00"},
)


def report(*runs: ModeRun) -> Report:
    """Of SCENARIO."""
    return Report(SCENARIO, bounds(SCENARIO), runs)


def mode_of(scenario: Scenario, run: ModeRun) -> dict[str, object]:
    """A mode's part of the document, as JSON gives it back."""
    content = json.loads(json.dumps(document(Report(scenario, bounds(scenario), [run])), allow_nan=False))
    mode: dict[str, object] = content["modes"][run.mode]
    return mode


def page_of(tmp_path: Path, title: str, scenario: Scenario, *runs: ModeRun) -> str:
    """The HTML page of these runs."""
    Outputs(html_path=tmp_path / "page.html").publish(Report(scenario, bounds(scenario), runs, title))
    return (tmp_path / "page.html").read_text()


@pytest.fixture(scope="module", autouse=True)
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every plot, drawn before the tests: matplotlib keeps the fonts open that it has used once."""
    return page_of(tmp_path_factory.mktemp("page"), "Fan-out", SCENARIO, NATIVE, SCHEDULED)


def test_the_document_has_every_key_that_readers_rely_on() -> None:
    content = document(report(NATIVE, FULL))
    assert {"nodes", "size_bytes", "pieces", "links", "bounds", "modes", "reduction_vs_native"} <= set(content)
    found = json.loads(json.dumps(content))
    assert {"fluid_s", "piece_s"} <= set(found["bounds"])
    keys = (
        "makespan_s p50_s p99_s first_byte_p50_s origin_bytes origin_gets x_fluid x_piece cross_rack_bytes"
        " control_bytes cpu_s_per_gib cpu_busy node_rss_mib supernode_rss_mib errors"
    )
    for mode in ("native", "scheduled"):
        assert set(keys.split()) <= set(found["modes"][mode])
    links = {"node_bytes_s", "origin_bytes_s", "supernode_bytes_s", "declared"}
    assert links <= set(found["links"])


def test_a_runs_figures_are_those_of_its_nodes_against_the_bounds() -> None:
    mode = mode_of(SCENARIO, FULL)
    assert mode == {
        "makespan_s": 12.0,
        "p50_s": 11.5,
        "p99_s": 12.0,
        "p1_s": 11.0,
        "spread": pytest.approx(1 / 11.5),
        "first_byte_p50_s": 1.0,
        "origin_first_byte_s": 0.25,
        "after_origin_s": 11.75,
        "origin_bytes": SIZE,
        "origin_gets": 1,
        "origin_repeated_bytes": 0,
        "origin_x_size": 1.0,
        "origin_gets_per_blob": 1.0,
        "seed_bytes": SIZE,
        "peer_bytes": 3 * SIZE,
        "x_fluid": pytest.approx(12 / 8),
        "x_piece": pytest.approx(12 / 11),
        "back_at_rate_s": None,
        "cross_rack_bytes": None,
        "cross_rack_x_minimum": None,
        "control_bytes": 1000,
        "cpu_s_per_gib": 9.0,
        "cpu_busy": 0.5,
        "cpu_network": 0.1,
        "node_rss_mib": 40.0,
        "node_peak_mib": 70.0,
        "supernode_rss_mib": 60.0,
        "errors": 0,
        "reduction_vs_native": None,
        "size_fraction": 1.0,
        "groups": [],
        "x_native": None,
        "layer_wait_p50_s": None,
        "cpu_ms_per_layer": None,
        "own_x_bound_max": None,
        "own_x_bound": {},
        "trace_sha256": "00",
    }


def test_the_time_after_the_origins_answer_is_told_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert mode_of(SCENARIO, SCHEDULED)["after_origin_s"] is None
    print_report(report(FULL))
    row = next(line for line in capsys.readouterr().out.splitlines() if "origin's first byte" in line)
    assert "11.750 s" in row


def test_the_reduction_is_the_part_of_natives_time_that_is_saved() -> None:
    torrent = mode_run("torrent", (20.0,) * NODES)
    content = json.loads(json.dumps(document(report(NATIVE, torrent, SCHEDULED))))
    assert content["reduction_vs_native"] == pytest.approx(1 - 12 / 40)
    assert content["modes"]["torrent"]["reduction_vs_native"] == pytest.approx(0.5)
    assert content["modes"]["native"]["reduction_vs_native"] is None
    assert content["bounds"]["reduction_vs_native"] == pytest.approx(1 - 8 / 32)
    assert document(report(SCHEDULED))["reduction_vs_native"] is None
    assert document(report(NATIVE, torrent))["reduction_vs_native"] == pytest.approx(0.5)


def test_what_was_run_with_a_part_of_the_size_is_compared_to_that_part() -> None:
    quarter = replace(NATIVE, origin_bytes=NODES * SIZE // 4, size_fraction=0.25)
    assert mode_of(SCENARIO, quarter)["origin_x_size"] == pytest.approx(NODES)


def test_what_a_run_cannot_measure_is_null_and_left_out_of_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert mode_of(SCENARIO, SCHEDULED)["cpu_busy"] is None
    print_report(report(SCHEDULED))
    bare = capsys.readouterr().out
    print_report(report(SCHEDULED, replace(FULL, mode="torrent")))
    full = capsys.readouterr().out
    for name in ("cores busy", "control bytes", "memory of a node", "sent by peers"):
        assert name not in bare
        assert name in full
    assert "None" not in bare + full


def test_the_assumed_links_come_before_any_figure(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Report(SCENARIO, bounds(SCENARIO, 0.96), [SCHEDULED], links={"round_trip_s": 0.001}))
    said = capsys.readouterr().out
    assert "4 nodes, 8 MiB in 8 pieces" in said
    assert "goodput 0.9600 of each" in said
    assert said.index("goodput") < said.index("round_trip_s 0.001") < said.index("fluid bound")


def test_an_unlimited_link_is_null() -> None:
    scenario = replace(SCENARIO, origin_bytes_s=0.0)
    content = json.loads(json.dumps(document(Report(scenario, bounds(scenario), [SCHEDULED])), allow_nan=False))
    assert content["links"]["origin_bytes_s"] is None
    assert content["links"]["goodputs"]["origin_bytes_s"] is None


def test_a_runs_own_links_and_sections_are_added() -> None:
    links, more = {"round_trip_s": 0.001}, {"simulation": {"seed": 1}}
    content = document(Report(SCENARIO, bounds(SCENARIO), [SCHEDULED], links=links, more=more))
    assert json.loads(json.dumps(content))["links"]["round_trip_s"] == 0.001
    assert content["simulation"] == {"seed": 1}


def test_a_node_that_is_not_complete_is_an_error_and_the_reader_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run = mode_run("scheduled", (11.0, 12.0, 12.5, None))
    assert mode_of(SCENARIO, run)["errors"] == 1
    assert mode_of(SCENARIO, run)["makespan_s"] == 12.5
    print_report(report(run))
    assert "1 nodes failed or are not complete" in capsys.readouterr().out


def test_a_run_that_nobody_ended_has_no_times(tmp_path: Path) -> None:
    nobody = replace(mode_run("scheduled", (None,) * NODES), samples=())
    mode = mode_of(SCENARIO, nobody)
    assert (mode["makespan_s"], mode["x_fluid"], mode["errors"]) == (None, None, NODES)
    assert "<svg" not in page_of(tmp_path, "nobody", SCENARIO, nobody)


def test_classes_and_fates_are_groups_of_their_own_against_their_own_bounds() -> None:
    mixed = (NodeClass("fast", 1, MIB, MIB), NodeClass("thin", 1, MIB / 4, MIB / 4))
    scenario = replace(SCENARIO, classes=mixed, faults=Faults(slow_factor=0.5))
    names = ("fast", "thin", "fast", "thin")
    nodes = tuple(
        NodeTimes(node, name, 0.0, 1.0, at_s, fate=fate)
        for node, (name, at_s, fate) in enumerate(
            zip(names, (16.0, 40.0, 20.0, None), ("", "", "slow", "left"), strict=True)
        )
    )
    mode = mode_of(scenario, replace(SCHEDULED, nodes=nodes))
    assert mode["makespan_s"] == 40.0
    assert mode["errors"] == 0
    # By class, then by fate: F/d is 8 s and 32 s, twice that of slow nodes; uplinks need 4 * 8 / 3.5 s.
    groups = mode["groups"]
    assert isinstance(groups, list)
    assert [(group["class_name"], group["fate"], group["complete"]) for group in groups] == [
        ("fast", "", 1),
        ("fast", "slow", 1),
        ("thin", "", 1),
        ("thin", "left", 0),
    ]
    assert [group["bound_s"] for group in groups] == pytest.approx([4 * 8 / 3.5, 16.0, 32.0, 32.0])
    assert groups[2]["x_bound"] == pytest.approx(40 / 32)


def test_where_requests_are_spread_each_node_has_its_own_time_and_bound() -> None:
    scenario = replace(SCENARIO, arrivals=Arrivals(poisson_per_s=1.0, joiners=1))
    asked = [at_s if at_s is not None else 50.0 for at_s in scenario.arrivals_s()]
    nodes = tuple(NodeTimes(node, "node", at_s, at_s + 1, at_s + 10.0) for node, at_s in enumerate(asked))
    mode = mode_of(scenario, replace(SCHEDULED, nodes=nodes))
    own = mode["own_x_bound"]
    assert isinstance(own, dict)
    assert own[str(NODES - 1)] == mode["own_x_bound_max"] == pytest.approx(10 / 8)
    # The joiner, who asked at 50 s, is not the last node.
    assert mode["makespan_s"] == pytest.approx(asked[2] + 10.0)


def test_the_page_needs_no_script_and_nothing_from_elsewhere(whole_page: str) -> None:
    assert "//" not in whole_page
    assert "<script" not in whole_page
    assert not re.search(r"@import|url\((?!#)", whole_page)
    assert set(re.findall(r'href="(.)', whole_page)) <= {"#"}


def test_the_page_shows_the_report_of_the_terminal_and_every_plot(
    whole_page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(report(NATIVE, SCHEDULED))
    for line in capsys.readouterr().out.splitlines():
        assert escape(line.rstrip()) in whole_page
    assert whole_page.count("<svg") == 2


def test_names_in_the_page_are_text_whatever_they_contain(tmp_path: Path) -> None:
    named = replace(SCENARIO, classes=(NodeClass("<b>&node", 1, MIB, MIB),))
    nodes = tuple(replace(node, class_name="<b>&node") for node in SCHEDULED.nodes)
    run = replace(SCHEDULED, nodes=nodes)
    page = page_of(tmp_path, "<script>alert(1)</script>", named, run)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;node" in page


def test_plots_are_files_that_say_their_units_and_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Outputs(plots_dir=tmp_path / name).publish(report(NATIVE, SCHEDULED))
    plots = {path.name: path.read_text() for path in sorted((tmp_path / "one").iterdir())}
    assert set(plots) == {"completion.svg", "sources.svg"}
    assert plots == {path.name: path.read_text() for path in (tmp_path / "two").iterdir()}
    assert "seconds from the first request" in plots["completion.svg"]
    assert "fluid bound: 8.000 s" in plots["completion.svg"]
    assert "received, GiB" in plots["sources.svg"]


def test_who_shows_no_plot_loads_no_plotting_library() -> None:
    code = "import sys, benchmarks.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_document_is_kept_where_it_was_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    Outputs(json_path=kept).publish(report(SCHEDULED))
    assert json.loads(kept.read_text()) == json.loads(json.dumps(document(report(SCHEDULED))))


def test_a_place_where_nothing_can_be_kept_is_refused_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    Outputs(tmp_path / "new.json", file, tmp_path / "plots").check()
    with pytest.raises(ConfigError, match="its folder must exist"):
        Outputs(json_path=tmp_path / "missing" / "new.json").check()
    with pytest.raises(ConfigError, match="no file can be written"):
        Outputs(html_path=tmp_path).check()
    with pytest.raises(ConfigError, match="this is a file"):
        Outputs(plots_dir=file).check()
