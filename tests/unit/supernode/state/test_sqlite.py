"""The state file: the contract, files of earlier versions, and what it refuses."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from proto.ids import Digest, PeerId
from proto.wire.messages import Source
from supernode.state.base import SavedJob, SavedPublic, StateError
from supernode.state.sqlite import HOLDERS_MAX, SqliteState
from tests.conformance.state_suite import BLOB, SOURCE, StateSuite

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Files:
    """One path, opened again and again, with room for 3 swarms, public checks and keys of events each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.opened: list[SqliteState] = []

    def open(self) -> SqliteState:
        self.opened.append(SqliteState(self._path, swarms_max=3, public_max=3, event_keys_max=3, prune_every=2))
        return self.opened[-1]


class TestSqliteState(StateSuite):
    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[_Files]:
        files = _Files(tmp_path / "state.sqlite")
        yield files
        for state in files.opened:
            state.close()


def test_a_file_written_by_version_0_1_0_opens(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "written_by_0.1.0.sqlite", tmp_path / "state.sqlite")
    state = SqliteState(tmp_path / "state.sqlite")
    assert state.next_epoch() == 8
    vouched, half = state.load_swarm(Digest.of(b"vouched")), state.load_swarm(Digest.of(b"half known"))
    assert vouched is not None
    assert half is not None
    assert (vouched.size_bytes, vouched.piece_size_bytes, vouched.vouched) == (1000, 500, True)
    assert vouched.sources == half.sources == (Source("registry.example", "library/thing"),)
    assert vouched.holders == half.holders == (b"p" * 32,)
    assert vouched.hashes == ((0, b"a" * 32 + b"b" * 32),)
    # A peer may have claimed them: what no digest vouched for is made anew.
    assert (half.vouched, half.hashes) == (False, ())
    for peer in range(HOLDERS_MAX):
        state.add_holder(Digest.of(b"vouched"), PeerId(bytes([peer]) * 32))
    vouched = state.load_swarm(Digest.of(b"vouched"))
    assert vouched is not None
    assert len(vouched.holders) == HOLDERS_MAX
    assert state.load_public(SOURCE, Digest.of(b"vouched")) == SavedPublic(1000, 1700000000.5)
    state.close()


def test_a_file_of_the_schema_before_jobs_takes_jobs(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "written_by_0.1.0.sqlite", tmp_path / "state.sqlite")
    state = SqliteState(tmp_path / "state.sqlite")
    assert state.load_jobs() == []
    state.save_job(SavedJob(1, "job"))
    assert state.load_jobs() == [SavedJob(1, "job")]
    state.close()


def test_a_store_beyond_its_limits_is_pruned_when_it_is_opened(tmp_path: Path) -> None:
    blobs = [Digest.of(bytes([number])) for number in range(4)]
    before = SqliteState(tmp_path / "state.sqlite")
    for number, blob in enumerate(blobs):
        before.save_swarm(blob, 1, 1, float(number))
    before.close()
    state = SqliteState(tmp_path / "state.sqlite", swarms_max=2)
    assert [state.load_swarm(blob) is not None for blob in blobs] == [False, False, True, True]
    state.close()


def test_a_failure_of_sqlite_is_a_state_error(tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.sqlite")
    state.close()
    with pytest.raises(StateError, match="closed"):
        state.load_swarm(BLOB)
    with pytest.raises(StateError, match="closed"):
        state.save_swarm(BLOB, 1000, 500, 1.0)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SqliteState(tmp_path / "state.sqlite").close()
    db = sqlite3.connect(tmp_path / "state.sqlite")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="schema 99"):
        SqliteState(tmp_path / "state.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(ConfigError, match=r"state\.sqlite"):
        SqliteState(tmp_path / "state.sqlite")
