"""DiskStore: the suite of all stores, then what is its own: files, restarts, corruption, locks, a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from proto.errors import ConfigError, StoreFull
from tests.conformance.adoption_suite import AdoptionSuite
from tests.conformance.store_suite import StoreSuite
from tests.support.blobs import fill, some_blob, write_piece

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.blob import Blob


def open_store(root: Path, size_limit_bytes: int = 1 << 30, free_floor_bytes: int = 0) -> DiskStore:
    return DiskStore(root, size_limit_bytes=size_limit_bytes, free_floor_bytes=free_floor_bytes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    store = open_store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[DiskStore]:
    store = open_store(tmp_path / "store", size_limit_bytes=10_000)
    yield store
    store.close()


class TestDiskStore(StoreSuite, AdoptionSuite):
    pass


BLOB = some_blob(10_000, piece_size_bytes=1000)


def only_file(root: Path, pattern: str) -> Path:
    (path,) = root.glob(pattern)
    return path


def partial_store(root: Path) -> None:
    """Leave a closed store with pieces 0 and 5 of BLOB."""
    store = open_store(root)
    fill(store, BLOB, [0, 5]).close()
    store.close()


def test_a_void_waits_for_no_digest_check_and_wins(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = fill(store, BLOB, range(10))
    syncing, go_on = threading.Event(), threading.Event()

    def slow_sync(descriptor: int) -> None:
        syncing.set()
        assert go_on.wait(WAIT_S)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    with ThreadPoolExecutor(2) as threads:
        check = threads.submit(handle.check_digest)
        assert syncing.wait(WAIT_S)
        void = threads.submit(handle.void)
        try:
            void.result(WAIT_S)
        finally:
            go_on.set()
        assert not check.result(WAIT_S)
    assert (handle.held, handle.complete) == (0, False)
    handle.close()


def test_running_out_of_descriptors_costs_no_blob(store: DiskStore) -> None:
    fill(store, BLOB, [0, 5]).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert store.get(BLOB.digest) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert handle.held == 0b100001
    handle.close()


# --- restarts --------------------------------------------------------------------------------------------------


def test_pieces_and_hashes_outlive_the_process(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    handle = fill(store, BLOB, [0, 5])
    signed = SignedHashes(0, BLOB.hashes, b"s" * 64)
    handle.learn_hashes(signed)
    handle.close()
    store.close()
    again = open_store(tmp_path)
    got = again.get(BLOB.digest)
    assert got is not None
    assert (got.held, got.signed_hashes, got.hash_of(9)) == (0b100001, (signed,), BLOB.hashes[9 * 32 :])
    for piece in (1, 2, 3, 4, 6, 7, 8, 9):
        write_piece(got, BLOB, piece)
    assert got.check_digest()
    got.close()
    again.close()


def test_a_complete_blob_keeps_its_signed_hashes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    handle = fill(store, BLOB)
    signed = SignedHashes(0, BLOB.hashes, b"s" * 64)
    handle.learn_hashes(signed)
    handle.close()
    store.close()
    again = open_store(tmp_path)
    got = again.get(BLOB.digest)
    assert got is not None
    assert (got.complete, got.held, got.signed_hashes) == (True, BLOB.layout.full_mask, (signed,))
    got.close()
    again.close()


def test_the_order_of_eviction_outlives_the_process(tmp_path: Path) -> None:
    first, second = some_blob(4_000, seed=1), some_blob(4_000, seed=2)
    store = open_store(tmp_path, 10_000)
    fill(store, first).close()
    fill(store, second).close()
    again = store.get(first.digest)
    assert again is not None
    again.close()
    store.close()
    store = open_store(tmp_path, 10_000)
    assert store.used_bytes == 8_000
    fill(store, some_blob(4_000, seed=3)).close()
    assert store.get(second.digest) is None
    store.close()


def test_a_blob_that_is_used_again_and_again_is_noted_once(tmp_path: Path) -> None:
    first, second = some_blob(4_000, seed=1), some_blob(4_000, seed=2)
    store = open_store(tmp_path)
    fill(store, first).close()
    fill(store, second).close()
    stamps = set()
    for _ in range(3):
        again = store.get(first.digest)
        assert again is not None
        again.close()
        stamps.add(max(path.stat().st_mtime_ns for path in tmp_path.rglob(f"{first.digest.hex}.json")))
    assert len(stamps) == 1
    store.close()


def test_a_store_in_use_is_refused_to_a_second_process(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    code = (
        "import sys; from pathlib import Path; from peer.store.disk import DiskStore\n"
        "DiskStore(Path(sys.argv[1]), size_limit_bytes=1, free_floor_bytes=0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True, timeout=WAIT_S
    )
    assert "ConfigError" in done.stderr
    assert "in use by another process" in done.stderr
    with pytest.raises(ConfigError, match="in use"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


# --- files -----------------------------------------------------------------------------------------------------


def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    fill(store, BLOB).close()
    fill(store, some_blob(5_000, seed=2), [0]).close()
    store.close()
    modes = {
        (path.is_dir(), oct(path.stat().st_mode & 0o777))
        for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]
    }
    assert modes == {(True, "0o700"), (False, "0o600")}


def test_a_complete_blob_is_a_file_with_its_digest_for_a_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    path = tmp_path / "blobs" / "sha256" / BLOB.digest.hex[:2] / BLOB.digest.hex
    assert path.read_bytes() == BLOB.content
    assert not list(tmp_path.glob("partial/*/*/*"))


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "schema").write_text("2\n")
    with pytest.raises(ConfigError, match="newer"):
        open_store(tmp_path)


@pytest.mark.parametrize("content", ["", "one", "-1"])
def test_a_schema_file_that_makes_no_sense_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "schema").write_text(content)
    with pytest.raises(ConfigError, match="schema"):
        open_store(tmp_path)


def test_a_folder_with_foreign_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "precious").write_text("not ours")
    with pytest.raises(ConfigError, match="empty folder"):
        open_store(tmp_path)
    assert (tmp_path / "blobs" / "precious").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        open_store(tmp_path / "file" / "store")


# --- corruption ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"size_bytes": 1}', b'{"size_bytes": "x", "piece_size_bytes": 1, "boot_id": ""}'],
)
def test_a_torn_meta_file_costs_that_blob_alone(tmp_path: Path, content: bytes) -> None:
    other = some_blob(3_000, seed=2)
    store = open_store(tmp_path)
    fill(store, other).close()
    store.close()
    keep = set(tmp_path.glob("meta/*/*/*.json"))
    partial_store(tmp_path)
    (torn,) = set(tmp_path.glob("meta/*/*/*.json")) - keep
    torn.write_bytes(content)
    store = open_store(tmp_path)
    assert [line.digest for line in store.inventory()] == [other.digest]
    fill(store, BLOB).close()
    store.close()


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff\xff", b"\x00\x00\x00"])
def test_a_torn_bitfield_costs_that_blob(tmp_path: Path, content: bytes) -> None:
    partial_store(tmp_path)
    only_file(tmp_path, "meta/*/*/*.held").write_bytes(content)
    store = open_store(tmp_path)
    assert store.inventory() == []
    assert not [path for path in tmp_path.rglob("*/*/*/*") if path.is_file()]
    store.close()


def test_a_piece_whose_hash_record_is_torn_is_not_held(tmp_path: Path) -> None:
    partial_store(tmp_path)
    hashes = only_file(tmp_path, "meta/*/*/*.hashes")
    hashes.write_bytes(hashes.read_bytes()[:-1])
    store = open_store(tmp_path)
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert handle.held == 0b000001
    write_piece(handle, BLOB, 5)
    handle.close()
    store.close()
    store = open_store(tmp_path)
    assert [line.held for line in store.inventory()] == [0b100001]
    store.close()


def test_a_missing_data_file_costs_that_blob(tmp_path: Path) -> None:
    partial_store(tmp_path)
    only_file(tmp_path, "partial/*/*/*").unlink()
    store = open_store(tmp_path)
    assert store.inventory() == []
    store.close()


def test_a_complete_file_of_another_size_costs_that_blob(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    os.truncate(only_file(tmp_path, "blobs/*/*/*"), 9_999)
    store = open_store(tmp_path)
    assert store.inventory() == []
    store.close()


def test_files_without_a_meta_file_are_removed(tmp_path: Path) -> None:
    partial_store(tmp_path)
    only_file(tmp_path, "meta/*/*/*.json").unlink()
    open_store(tmp_path).close()
    assert not [path for path in tmp_path.rglob("*/*/*/*") if path.is_file()]


def test_a_file_that_vanished_under_a_running_store_costs_that_blob(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    only_file(tmp_path, "blobs/*/*/*").unlink()
    assert store.get(BLOB.digest) is None
    assert store.used_bytes == 0
    fill(store, BLOB).close()
    store.close()


# --- room ------------------------------------------------------------------------------------------------------


def test_a_blob_below_the_free_floor_is_refused(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    store = open_store(tmp_path, free_floor_bytes=status.f_blocks * status.f_frsize)
    with pytest.raises(StoreFull, match="floor"):
        store.open(BLOB.digest, BLOB.layout)
    store.close()


def test_a_blob_for_which_there_is_room_has_no_other_looked_at(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_: DiskStore) -> list[Blob]:
        raise AssertionError

    monkeypatch.setattr(DiskStore, "_movable", look)
    small = some_blob(1_000)
    store.open(small.digest, small.layout, waits_on=lambda: True).close()


@pytest.mark.parametrize(("limit", "floor"), [(0, 0), (-1, 0), (1, -1)])
def test_limits_that_make_no_sense_are_refused(tmp_path: Path, limit: int, floor: int) -> None:
    with pytest.raises(ConfigError):
        open_store(tmp_path, limit, floor)


@pytest.mark.parametrize("name", ["blobs", "meta", "partial/sha256"])
def test_a_file_where_a_folder_is_expected_is_one_line(tmp_path: Path, name: str) -> None:
    open_store(tmp_path / "store").close()
    folder = tmp_path / "store" / name
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"store .*{name}.*; look after it, or name another folder"):
        open_store(tmp_path / "store")


def test_what_is_kept_outlives_a_restart_and_a_line_of_a_later_release(tmp_path: Path) -> None:
    blob = some_blob(1_000)
    first = open_store(tmp_path)
    first.keep([blob.digest])
    fill(first, blob).close()
    first.close()
    with (tmp_path / "kept").open("a") as file:
        file.write("sha3:42 1\n")
    again = open_store(tmp_path)
    assert again.kept == {blob.digest}
    assert not again.remove(blob.digest)
    again.close()


def test_room_of_a_kept_blob_is_not_waited_for(tmp_path: Path) -> None:
    store = open_store(tmp_path, BLOB.layout.size_bytes)
    reading = fill(store, BLOB)
    store.keep([BLOB.digest])
    other = some_blob(BLOB.layout.size_bytes, seed=7)
    with pytest.raises(StoreFull):
        store.open(other.digest, other.layout, waits_on=lambda: True)
    reading.close()
    store.close()
