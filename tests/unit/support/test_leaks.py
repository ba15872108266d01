"""What a test leaves behind is found and named; what it cleans up is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.cluster.processes import run
from tests.support import leaks
from tests.support.leaks import Snapshot, TaskWatch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.1)


def test_a_thread_is_named() -> None:
    release = threading.Event()
    before = Snapshot.take()
    thread = threading.Thread(target=release.wait, name="forgotten")
    thread.start()
    assert before.left_behind() == ["thread 'forgotten'"]
    release.set()
    thread.join()
    assert before.left_behind() == []


def test_a_child_is_named_also_as_a_zombie() -> None:
    before = Snapshot.take()
    child = subprocess.Popen(["sleep", "60"])
    assert before.left_behind() == [f"child {child.pid}: sleep 60"]
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert before.left_behind() == [f"child {child.pid}: zombie: nobody waited for it"]
    child.wait()
    assert before.left_behind() == []


def test_an_open_file_is_named(tmp_path: Path) -> None:
    before = Snapshot.take()
    number = os.open(tmp_path / "kept", os.O_CREAT | os.O_WRONLY)
    assert before.left_behind() == [f"open file {number}: {tmp_path}/kept"]
    os.close(number)
    assert before.left_behind() == []


def test_a_task_that_outlives_its_loop_is_named() -> None:
    watch = TaskWatch()

    async def leave_one() -> None:
        left.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))
        await asyncio.sleep(0)

    left: list[asyncio.Task[None]] = []
    with watch.watching():
        asyncio.run(leave_one())
    assert len(watch.left) == 1
    assert "forgotten" in watch.left[0]


def inner_pytest(tmp_path: Path, body: str, **env: str) -> str:
    """The output of a pytest run of one file under this project's conftest."""
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "conftest.py").write_text(
        "from tests.conftest import *  # noqa: F403\nfrom tests.support import leaks\nleaks.GRACE_S = 0.1\n"
    )
    (folder / "test_inner.py").write_text(body)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    argv = [sys.executable, "-m", "pytest", "-q", *config, str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    return run(argv, cwd=ROOT, check=False, env={**environment, **env}).stdout


LEAVES_SOMETHING = """
import asyncio, pytest, socket
kept = []
def test_socket():
    kept.append(socket.socket())
@pytest.mark.asyncio
async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60), name='forgotten'))
@pytest.mark.asyncio
async def test_clean():
    await asyncio.to_thread(print)
"""
WANTS_CLIENTS = """
import pytest
@pytest.mark.client('no-such-program')
def test_client():
    raise AssertionError('ran')
@pytest.mark.client
def test_any_client():
    raise AssertionError('ran')
"""


def test_what_a_test_leaves_fails_it_and_a_missing_client_skips_it(tmp_path: Path) -> None:
    output = inner_pytest(tmp_path, LEAVES_SOMETHING + WANTS_CLIENTS)
    assert "socket:[" in output
    assert "forgotten" in output
    assert "no-such-program not installed" in output
    assert "name the programs" in output
    # The two that leave something, and the one that names no program; they passed but for what they left.
    assert "3 passed, 1 skipped, 3 errors" in output


def test_a_missing_client_fails_in_ci(tmp_path: Path) -> None:
    output = inner_pytest(tmp_path, WANTS_CLIENTS, CI="true")
    assert "CI=true, and no-such-program not installed" in output
    assert "2 errors" in output
