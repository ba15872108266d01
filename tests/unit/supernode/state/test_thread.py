"""The state's thread: order of reads and writes, a store that fails, a store that hangs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from supernode.state import thread as thread_module
from supernode.state.base import StateError
from supernode.state.sqlite import SqliteState
from supernode.state.thread import StateThread
from tests.conformance.state_suite import BLOB, PEERS

if TYPE_CHECKING:
    from pathlib import Path

    from proto.ids import Digest, PeerId
    from supernode.state.base import SavedSwarm


class _Failing(SqliteState):
    def load_swarm(self, digest: Digest) -> SavedSwarm | None:
        raise StateError("the disk is gone")

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        raise StateError("the disk is gone")


class _Hanging(SqliteState):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go_on = threading.Event()

    def forget_swarm(self, digest: Digest) -> None:
        self.go_on.wait(WAIT_S)


@pytest.mark.asyncio
async def test_a_read_comes_after_the_writes_before_it(tmp_path: Path) -> None:
    thread = StateThread(SqliteState(tmp_path / "state.sqlite"))
    thread.save_swarm(BLOB, 1000, 500, 1.0)
    found = await thread.load_swarm(BLOB)
    thread.close()
    assert found is not None
    assert found.size_bytes == 1000


@pytest.mark.asyncio
async def test_a_read_that_fails_finds_nothing_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    thread = StateThread(_Failing(tmp_path / "state.sqlite"))
    assert await thread.load_swarm(BLOB) is None
    thread.close()
    assert "state_read_failed operation=load_swarm error=the disk is gone" in caplog.text


def test_a_write_that_fails_is_logged_and_the_next_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    thread = StateThread(_Failing(tmp_path / "state.sqlite"))
    thread.add_holder(BLOB, PEERS[0])
    thread.save_swarm(BLOB, 1000, 500, 1.0)
    thread.close()
    assert "state_write_failed operation=add_holder error=the disk is gone" in caplog.text
    after = SqliteState(tmp_path / "state.sqlite")
    assert after.load_swarm(BLOB) is not None
    after.close()


def test_writes_beyond_the_limit_are_dropped_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(thread_module, "WAITING_WRITES_MAX", 2)
    state = _Hanging(tmp_path / "state.sqlite")
    thread = StateThread(state)
    with caplog.at_level(logging.ERROR):
        thread.forget_swarm(BLOB)
        for peer in PEERS:
            thread.add_holder(BLOB, peer)
    state.go_on.set()
    thread.close()
    assert "state_write_dropped total=1" in caplog.text
