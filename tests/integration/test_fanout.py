"""`layercast-bench fanout` with few nodes: real processes behind shaped links, and nothing left of them afterwards.

Each run removes what killed ones left on this machine, whosever it is: so what looks for that stands here alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.cleanup import clean_up
from benchmarks.cluster.namespaces import NETNS_DIR
from benchmarks.cluster.processes import ManagedProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.client("docker-registry", "ip", "tc"), pytest.mark.root]

MODES = ("native", "torrent", "scheduled")
RUN_TIMEOUT_S = 600.0
# It would take over four minutes: it outlasts whatever is done meanwhile on any machine.
LONG = ("--nodes", "3", "--size", "32MiB", "--rate", "1mbit", "--mode", "scheduled", "--no-calibration")
SHORT = ("--nodes", "1", "--size", "256KiB", "--rate", "20mbit", "--mode", "native", "--no-calibration")
MODE_KEYS = {
    "makespan_s", "p50_s", "p99_s", "first_byte_p50_s", "origin_bytes", "origin_gets", "x_fluid", "x_piece",
    "cross_rack_bytes", "control_bytes", "cpu_s_per_gib", "cpu_busy", "node_rss_mib", "supernode_rss_mib", "errors",
}  # fmt: skip


@contextlib.contextmanager
def fanout(folder: Path, words: Sequence[str], command: str = "fanout") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(folder: Path, *words: str, command: str = "fanout") -> tuple[int, str]:
    """Exit status and all that it printed."""
    with fanout(folder, words, command) as process:
        printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        return process.returncode, printed


def wait_for_transfers(process: subprocess.Popen[str]) -> str:
    """Until the barrier has fallen; the prefix of all that the run made."""
    assert process.stdout is not None
    for line in process.stdout:
        if "0 of 3 nodes" in line:
            break
    return f"lcrun-{process.pid}-"


def namespaces(prefix: str) -> list[str]:
    return [path.name for path in NETNS_DIR.iterdir() if path.name.startswith(prefix)] if NETNS_DIR.is_dir() else []


def folders(prefix: str, root: Path) -> list[Path]:
    return [
        path
        for folder in (root, Path("/dev/shm"), Path("/run"))
        for path in folder.iterdir()
        if path.name.startswith(prefix)
    ]


def processes(prefix: str) -> list[str]:
    """Command lines of processes that were started for the run: its folder is in their words or their HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                words = (entry / "cmdline").read_bytes()
                if prefix.encode() in words + (entry / "environ").read_bytes():
                    found.append(words.replace(b"\0", b" ").decode())
    return found


def assert_nothing_is_left(prefix: str, root: Path) -> None:
    wait_until(lambda: not processes(prefix), f"the end of {processes(prefix)}")
    assert (namespaces(prefix), folders(prefix, root)) == ([], [])


def asked_for(control: str, modes: Sequence[str]) -> list[str]:
    links = ["--rate", "20mbit", "--racks", "2", "--uplink-rate", "40mbit", "--control", control]
    return ["--nodes", "3", "--size", "1MiB", "--layers", "2", "--mode", ",".join(modes), *links]


def assert_figures(file: Path, modes: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(file.read_text())
    assert (figures["nodes"], figures["size_bytes"], figures["pieces"]) == (3, 1 << 20, 4)
    assert {"fluid_s", "piece_s"} <= figures["bounds"].keys()
    assert set(figures["modes"]) == set(modes)
    for mode, one in figures["modes"].items():
        assert one.keys() >= MODE_KEYS
        assert one["errors"] == 0
        assert one["makespan_s"] >= figures["bounds"]["fluid_s"]
        assert one["origin_bytes"] == (3 << 20 if mode == "native" else 1 << 20)
        assert one["cross_rack_bytes"] >= 2 << 20
    assert figures["modes"]["scheduled"]["control_bytes"] > 0
    assert figures["problems"] == []
    return figures


def test_every_mode_gives_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    status, printed = finished(tmp_path, *asked_for("own", MODES), "--json", str(kept))
    assert status == 0, printed
    figures = assert_figures(kept, MODES)
    # How large it is depends on what else the machine does; that it is the one of these figures does not.
    share = figures["modes"]["scheduled"]["makespan_s"] / figures["modes"]["native"]["makespan_s"]
    assert figures["reduction_vs_native"] == pytest.approx(1.0 - share, abs=0.01)
    assert not list(tmp_path.glob("lcrun-*"))


def test_control_can_share_the_links(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    words = [*asked_for("shared", ["scheduled"]), "--no-calibration", "--json", str(kept)]
    status, printed = finished(tmp_path, *words)
    assert status == 0, printed
    assert_figures(kept, ["scheduled"])
    assert not list(tmp_path.glob("lcrun-*"))


def test_the_logs_of_all_programs_are_kept_and_a_piece_tells_its_steps(tmp_path: Path) -> None:
    logs, kept = tmp_path / "logs", tmp_path / "figures.json"
    words = ["--nodes", "2", "--size", "512KiB", "--rate", "20mbit", "--mode", "native,scheduled"]
    words += ["--no-calibration", "--json", str(kept), "--logs", str(logs)]
    status, printed = finished(tmp_path, *words, command="piece")
    assert status == 0, printed
    steps = {(row["place"], row["step"]) for row in json.loads(kept.read_text())["steps"]["scheduled"]}
    assert {("node", "15 received"), ("node", "16 hashed"), ("supernode", "11 sendfile"), ("node", "all")} <= steps
    for node in range(2):
        assert "ready peer" in (logs / "scheduled" / f"node-{node}.log").read_text()
    assert "ready supernode" in (logs / "scheduled" / "supernode.log").read_text()


def test_a_pull_is_timed_alone_and_beside_a_preheat_that_outlasts_it(tmp_path: Path) -> None:
    # The preheat takes a minute on these links, whatever the machine does.
    words = ["--nodes", "2", "--bystanders", "1", "--size", "256KiB", "--preheat", "32MiB", "--rate", "5mbit"]
    status, printed = finished(tmp_path, *words, "--rounds", "1", "--no-calibration", command="preheat")
    times = re.search(r"round 1: alone \S+ s, beside a preheat \S+ s: (\S+)\n", printed)
    assert times is not None, printed
    assert f"takes {times[1]} of its time alone" in printed
    assert status in (0, 1)
    assert not list(tmp_path.glob("lcrun-*"))


def test_without_namespaces_it_runs_on_loopback_and_says_so(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    words = ["--no-netns", "--nodes", "3", "--size", "512KiB", "--rate", "20mbit", "--mode", "native,scheduled"]
    # No run is as fast as the bound.
    status, printed = finished(tmp_path, *words, "--json", str(kept), "--max-x-piece", "1")
    assert status == 1
    assert "times the piece bound, at most 1" in printed
    assert "by the product's own rate limits, on loopback" in printed
    assert json.loads(kept.read_text())["modes"]["scheduled"]["origin_bytes"] == 512 << 10


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """It ends, and says why."""
    process.send_signal(number)
    printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 130
    assert printed.endswith("layercast-bench fanout: interrupted\n")


def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    with fanout(tmp_path, LONG) as process:
        prefix = wait_for_transfers(process)
        assert len(namespaces(prefix)) == 3 + 3
        interrupt(process, signal.SIGTERM)
    assert_nothing_is_left(prefix, tmp_path)


def test_a_run_removes_what_a_killed_one_left_and_leaves_alone_one_that_runs(tmp_path: Path) -> None:
    with fanout(tmp_path, LONG) as killed, fanout(tmp_path, LONG) as running:
        left, beside = wait_for_transfers(killed), wait_for_transfers(running)
        killed.kill()
        killed.wait()
        wait_until(lambda: not processes(left), "the end of all that a killed run had started")
        assert namespaces(left)
        before = namespaces(beside), sorted(processes(beside))
        status, printed = finished(tmp_path, *SHORT)
        assert status == 0, printed
        assert_nothing_is_left(left, tmp_path)
        assert (namespaces(beside), sorted(processes(beside))) == before
        interrupt(running, signal.SIGINT)
    assert_nothing_is_left(beside, tmp_path)


def test_what_tests_that_were_killed_left_is_removed() -> None:
    code = (
        "import time; from tests.support.networks import Lab;"
        "lab = Lab().__enter__(); lab.add_node(); print('ready', f'prefix={lab.prefix}'); time.sleep(60)"
    )
    with ManagedProcess([sys.executable, "-u", "-c", code], cwd=Path(__file__).parents[2]) as process:
        prefix = process.wait_ready()["prefix"]
        assert namespaces(prefix)
        process.kill()
    clean_up([])
    assert namespaces(prefix) == []
