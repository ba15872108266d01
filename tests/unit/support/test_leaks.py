"""What a test leaves behind is found and named; what it cleans up is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.harness.processes import run
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
    (folder / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (folder / "test_inner.py").write_text(body)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    argv = [sys.executable, "-m", "pytest", "-q", *config, str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    return run(argv, cwd=ROOT, check=False, env={**environment, **env}).stdout


def test_a_test_that_leaks_a_socket_and_a_task_fails(tmp_path: Path) -> None:
    output = inner_pytest(
        tmp_path,
        "import asyncio, pytest, socket\n"
        "kept = []\n"
        "def test_socket():\n    kept.append(socket.socket())\n"
        "@pytest.mark.asyncio\n"
        "async def test_task():\n    kept.append(asyncio.create_task(asyncio.sleep(60), name='forgotten'))\n"
        "@pytest.mark.asyncio\n"
        "async def test_clean():\n    await asyncio.to_thread(print)\n",
    )
    assert "socket:[" in output
    assert "forgotten" in output
    assert "2 errors" in output
    assert "3 passed" in output


MISSING_CLIENT = (
    "import pytest\n@pytest.mark.client('no-such-program')\ndef test_client():\n    raise AssertionError('ran')\n"
)


def test_a_missing_client_skips_with_the_reason(tmp_path: Path) -> None:
    output = inner_pytest(tmp_path, MISSING_CLIENT)
    assert "1 skipped" in output
    assert "no-such-program not installed" in output


def test_a_missing_client_fails_in_ci(tmp_path: Path) -> None:
    output = inner_pytest(tmp_path, MISSING_CLIENT, CI="true")
    assert "CI=true, and no-such-program not installed" in output
    assert "1 error" in output


def test_a_client_test_names_its_programs(tmp_path: Path) -> None:
    body = "import pytest\n@pytest.mark.client\ndef test_client():\n    raise AssertionError('ran')\n"
    assert "name the programs" in inner_pytest(tmp_path, body)
