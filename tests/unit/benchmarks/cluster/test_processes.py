"""Programs under test are started, watched and ended without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cluster.processes import LOG_LINES_MAX, WAIT_S, ManagedProcess, ProcessError, run, wait_until

PYTHON = [sys.executable, "-u", "-c"]


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_ready_line_gives_its_addresses() -> None:
    code = "print('ready peer proxy=127.0.0.1:1 status=127.0.0.1:2'); import time; time.sleep(60)"
    with ManagedProcess([*PYTHON, code]) as process:
        assert process.wait_ready() == {"proxy": "127.0.0.1:1", "status": "127.0.0.1:2"}


def test_a_program_that_ends_before_it_is_ready_shows_its_log() -> None:
    with ManagedProcess([*PYTHON, "print('no port'); raise SystemExit(3)"]) as process:
        with pytest.raises(ProcessError, match="ended\nno port"):
            process.wait_ready()
        assert process.wait(WAIT_S) == 3


def test_the_log_is_bounded() -> None:
    with ManagedProcess([*PYTHON, f"for n in range({LOG_LINES_MAX + 500}): print(n)\nprint('end')"]) as process:
        process.wait_for_line("^end$")
        assert len(process.log()) == LOG_LINES_MAX


def test_a_stubborn_program_and_its_children_are_killed() -> None:
    code = (
        "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '60']); print('ready', f'child={child.pid}'); child.wait()"
    )
    with ManagedProcess([*PYTHON, code]) as process:
        child = int(process.wait_ready()["child"])
        with pytest.raises(ProcessError, match="did not end within"):
            process.terminate(timeout_s=0.2)
    wait_until(lambda: not alive(child), "the end of the child")


def test_terminate_gives_the_exit_status() -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready'); signal.pause()"
    with ManagedProcess([*PYTHON, code]) as process:
        process.wait_ready()
        assert process.terminate() == 7


def test_a_paused_program_stands_still_until_resumed() -> None:
    code = "import itertools, time\nfor n in itertools.count(): print('tick', n); time.sleep(0.01)"
    with ManagedProcess([*PYTHON, code]) as process:
        process.wait_for_line("tick")
        process.pause()
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: state.read_text().split()[2] == "T", "the stop")
        process.resume()
        wait_until(lambda: state.read_text().split()[2] != "T", "the end of the stop")
        last = process.log()[-1]
        wait_until(lambda: process.log()[-1] != last, "the next tick")


def test_a_child_dies_with_the_process_that_started_it() -> None:
    code = (
        "import time; from benchmarks.cluster.processes import ManagedProcess;"
        "child = ManagedProcess(['sleep', '60']); print('ready', f'child={child.pid}'); time.sleep(60)"
    )
    with ManagedProcess([*PYTHON, code], cwd=Path(__file__).parents[4]) as parent:
        child = int(parent.wait_ready()["child"])
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not alive(child), "the end of the orphan")


def test_run_says_what_failed_and_what_it_printed() -> None:
    with pytest.raises(ProcessError, match=r"exit status 2\nout\nerr"):
        run(["/bin/sh", "-c", "echo out; echo err >&2; exit 2"])


def test_run_ends_a_program_whose_time_is_up() -> None:
    with pytest.raises(ProcessError, match=r"not done within 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)


def test_it_measures_memory_and_cpu() -> None:
    code = "block = bytearray(50 << 20); sum(range(3_000_000)); print('ready'); import signal; signal.pause()"
    with ManagedProcess([*PYTHON, code]) as process:
        process.wait_ready()
        assert 50 << 20 < process.memory_peak_bytes() < 150 << 20
        assert 0 < process.cpu_s() < 20


def test_waiting_for_the_end_has_a_limit() -> None:
    with ManagedProcess(["sleep", "60"]) as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
