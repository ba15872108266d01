"""What the state file remembers over a restart, and what it refuses."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from proto.ids import Digest, PeerId
from proto.wire.messages import Source
from supernode.state import sqlite
from supernode.state.sqlite import SqliteState, StateThread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOB = Digest.of(b"blob")
SOURCE = Source("registry.example", "library/thing")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteState]:
    state = SqliteState(tmp_path / "state.sqlite")
    yield state
    state.close()


def test_the_epoch_grows_with_each_start(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        state = SqliteState(tmp_path / "state.sqlite")
        epochs.append(state.next_epoch())
        state.close()
    assert epochs == [1, 2, 3]


def test_a_swarm_comes_back_as_it_was(state: SqliteState) -> None:
    state.save_swarm(BLOB, 1000, 256, 1.0)
    state.add_source(BLOB, SOURCE)
    state.add_source(BLOB, SOURCE)
    state.add_hashes(BLOB, [(0, b"a" * 64), (3, b"d" * 32)])
    state.add_holder(BLOB, PeerId(b"p" * 32))
    state.add_holder(BLOB, PeerId(b"q" * 32))
    state.remove_holder(BLOB, PeerId(b"p" * 32))
    saved = state.load_swarm(BLOB)
    assert saved is not None
    assert (saved.size_bytes, saved.piece_size_bytes, saved.vouched) == (1000, 256, False)
    assert saved.sources == (SOURCE,)
    assert saved.hashes == ((0, b"a" * 64), (3, b"d" * 32))
    assert saved.holders == (b"q" * 32,)


def test_vouching_joins_the_hashes(state: SqliteState) -> None:
    state.save_swarm(BLOB, 1000, 500, 1.0)
    state.add_hashes(BLOB, [(0, b"a" * 32), (1, b"b" * 32)])
    state.vouch(BLOB, b"a" * 32 + b"b" * 32)
    saved = state.load_swarm(BLOB)
    assert saved is not None
    assert saved.vouched
    assert saved.hashes == ((0, b"a" * 32 + b"b" * 32),)


def test_another_cut_forgets_the_hashes(state: SqliteState) -> None:
    state.save_swarm(BLOB, 1000, 500, 1.0)
    state.add_hashes(BLOB, [(0, b"a" * 32)])
    state.save_swarm(BLOB, 1000, 250, 2.0)
    saved = state.load_swarm(BLOB)
    assert saved is not None
    assert (saved.piece_size_bytes, saved.hashes) == (250, ())


def test_a_voided_swarm_is_gone_with_all_that_hung_on_it(state: SqliteState) -> None:
    state.save_swarm(BLOB, 1000, 500, 1.0)
    state.add_holder(BLOB, PeerId(b"p" * 32))
    state.forget_swarm(BLOB)
    state.add_hashes(BLOB, [(0, b"a" * 32)])
    assert state.load_swarm(BLOB) is None
    state.save_swarm(BLOB, 1000, 500, 1.0)
    saved = state.load_swarm(BLOB)
    assert saved is not None
    assert (saved.hashes, saved.holders) == ((), ())


def test_public_sources_are_remembered_with_their_time(state: SqliteState) -> None:
    assert state.load_public(SOURCE, BLOB) is None
    state.save_public(SOURCE, BLOB, 1000, 7.0)
    saved = state.load_public(SOURCE, BLOB)
    assert saved is not None
    assert (saved.size_bytes, saved.checked_unix_s) == (1000, 7.0)
    state.forget_public(SOURCE, BLOB)
    assert state.load_public(SOURCE, BLOB) is None


def test_the_longest_unused_are_pruned(state: SqliteState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SWARMS_MAX", 2)
    blobs = [Digest.of(bytes([number])) for number in range(4)]
    for number, blob in enumerate(blobs):
        state.save_swarm(blob, 1, 1, float(number))
    state.prune()
    assert [state.load_swarm(blob) is not None for blob in blobs] == [False, False, True, True]


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


def test_reads_come_after_the_writes_before_them(tmp_path: Path) -> None:
    thread = StateThread(SqliteState(tmp_path / "state.sqlite"))
    thread.write(SqliteState.save_swarm, BLOB, 1000, 500, 1.0)
    found = thread.read(SqliteState.load_swarm, BLOB).result(5)
    thread.close()
    assert found is not None
    assert found.size_bytes == 1000


def test_a_file_that_is_open_for_long_keeps_its_limits_too(state: SqliteState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PUBLIC_MAX", 3)
    monkeypatch.setattr(sqlite, "PRUNE_EVERY", 10)
    source = Source("registry.example", "library/thing")
    blobs = [Digest.of(bytes([number])) for number in range(10)]
    for number, blob in enumerate(blobs):
        state.save_public(source, blob, 1000, float(number))
    assert [state.load_public(source, blob) is not None for blob in blobs] == [False] * 7 + [True] * 3
