"""What is remembered of blobs' sources over a restart."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.node.source_cache import SCHEMA_VERSION, SourceCache
from proto.errors import ConfigError
from proto.ids import Digest
from proto.wire.messages import Source

if TYPE_CHECKING:
    from pathlib import Path

A, B = Digest.of(b"a"), Digest.of(b"b")
HUB, QUAY = Source("docker.io", "library/a"), Source("quay.io", "x/a")


def test_sources_come_back_latest_first(tmp_path: Path) -> None:
    file = SourceCache(tmp_path / "state.sqlite")
    for source in (HUB, QUAY, HUB):
        file.remember(A, source)
    file.close()
    file = SourceCache(tmp_path / "state.sqlite")
    assert file.load() == {A: (HUB, QUAY)}
    file.close()


def test_what_waits_is_written_together_and_on_demand(tmp_path: Path) -> None:
    file = SourceCache(tmp_path / "state.sqlite")
    file.remember(A, HUB)
    file.remember(B, QUAY)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as reader:
        assert reader.execute("SELECT count(*) FROM sources").fetchone() == (0,)
        file.write_waiting()
        wait_until(lambda: reader.execute("SELECT count(*) FROM sources").fetchone() == (2,), "both are written")
    file.close()


def test_what_left_the_store_is_forgotten(tmp_path: Path) -> None:
    file = SourceCache(tmp_path / "state.sqlite")
    file.remember(A, HUB)
    file.remember(B, HUB)
    file.forget(A)
    file.close()
    file.forget(B)  # too late, and no harm
    file = SourceCache(tmp_path / "state.sqlite")
    assert list(file.load()) == [B]
    file.keep_only([A])
    assert file.load() == {}
    file.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database " * 1000)
    file = SourceCache(path)
    assert file.load() == {}
    file.close()
    assert (tmp_path / "state.sqlite.damaged").exists()


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigError, match=rf"state\.sqlite has schema {SCHEMA_VERSION + 1}"):
        SourceCache(path)


def test_whose_private_bytes_are_is_kept_and_ends_what_was_public(tmp_path: Path) -> None:
    file = SourceCache(tmp_path / "state.sqlite")
    file.remember(A, HUB)
    file.keep_private(A, ("quay.io",))
    file.keep_private(B, ("quay.io", "docker.io"))
    file.keep_private(B, ())
    file.close()
    file = SourceCache(tmp_path / "state.sqlite")
    assert (file.load(), file.load_private()) == ({}, {A: ("quay.io",)})
    file.keep_only([])
    assert file.load_private() == {}
    file.close()


def test_a_file_of_the_first_schema_opens(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    file = SourceCache(path)
    file.remember(A, HUB)
    file.close()
    with contextlib.closing(sqlite3.connect(path)) as older:
        older.execute("DROP TABLE private_bytes")
        older.execute("PRAGMA user_version = 1")
        older.commit()
    file = SourceCache(path)
    assert (file.load(), file.load_private()) == ({A: (HUB,)}, {})
    file.close()


def test_a_file_without_manifests_opens_and_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    file = SourceCache(path)
    file.remember(A, HUB)
    file.close()
    with contextlib.closing(sqlite3.connect(path)) as older:
        older.execute("ALTER TABLE sources DROP COLUMN manifest")
        older.execute("PRAGMA user_version = 2")
        older.commit()
    manifest = Source(HUB.upstream, HUB.repository, manifest=True)
    file = SourceCache(path)
    file.remember(B, manifest)
    file.close()
    file = SourceCache(path)
    assert file.load() == {A: (HUB,), B: (manifest,)}
    file.close()


def test_a_file_that_is_damaged_where_nobody_looks_first_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    cache = SourceCache(path)
    for number in range(200):
        cache.remember(Digest.of(b"%d" % number), Source("registry.example.com", "library/thing"))
    cache.close()
    content = path.read_bytes()
    # A character that is none, in one of many rows.
    damaged = content.replace(b"registry.example.com", b"registry.exa\xffple.com", 1)
    assert damaged != content
    path.write_bytes(damaged)
    again = SourceCache(path)
    assert again.load() == {}
    again.close()
    assert (tmp_path / "state.sqlite.damaged").exists()
