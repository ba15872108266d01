"""`layercast up` starts its programs in order, restarts what dies, and leaves none behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, ManagedProcess, wait_until
from tests.unit.peer.cli.programs import MODULE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[4]


@pytest.fixture
def supervised(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ManagedProcess]:
    behaviour = getattr(request, "param", "well")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", MODULE, "supervised", str(tmp_path), behaviour]
    with ManagedProcess(words, name="supervisor", env=environment) as process:
        yield process


def runs_of(directory: Path, name: str) -> list[tuple[int, str]]:
    """(pid, what it was told) of each time a stand-in started."""
    path = directory / f"{name}.pids"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_second_program_is_told_where_the_first_one_listens(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line("all ready 127.0.0.1:1000")
    assert runs_of(tmp_path, "second")[0][1] == "127.0.0.1:1000"


def test_sigterm_ends_both_in_time(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line("all ready")
    assert supervised.terminate() == 0
    assert not any(alive(pid) for name in ("first", "second") for pid, _ in runs_of(tmp_path, name))


@pytest.mark.parametrize("supervised", ["deaf"], indirect=True)
def test_a_program_that_hears_no_sigterm_is_killed_in_time(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line("all ready")
    assert supervised.terminate() == 0
    assert not any(alive(pid) for name in ("first", "second") for pid, _ in runs_of(tmp_path, name))


@pytest.mark.parametrize("supervised", ["dies"], indirect=True)
def test_a_program_that_dies_is_started_again_after_a_growing_wait(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line(r"second ended with status 3; starting it again in 0.5 s")
    supervised.wait_for_line(r"second ended with status 3; starting it again in 1 s")
    wait_until(lambda: len(runs_of(tmp_path, "second")) == 3, "the third start")
    assert len(runs_of(tmp_path, "first")) == 1
    assert supervised.running


@pytest.mark.parametrize("supervised", ["broken"], indirect=True)
def test_a_program_that_never_comes_up_ends_the_command(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line("second ended with status 7 before it was ready")
    assert supervised.wait(WAIT_S) == 1
    assert not alive(runs_of(tmp_path, "first")[0][0])


def test_the_programs_die_with_their_minder_however_it_dies(supervised: ManagedProcess, tmp_path: Path) -> None:
    supervised.wait_for_line("all ready")
    pids = [pid for name in ("first", "second") for pid, _ in runs_of(tmp_path, name)]
    os.kill(supervised.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of both")
