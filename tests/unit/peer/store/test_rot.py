"""A disk that rots: pieces that were right and are not any more are found, and they alone are dropped."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from tests.support.blobs import fill, some_blob, write_piece
from tests.support.rot import flip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from proto.ids import Digest

BLOB = some_blob(10_000, piece_size_bytes=1000)
DAY_S = 86_400.0


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_store(root: Path, clock: Clock | None = None) -> DiskStore:
    return DiskStore(root, size_limit_bytes=1 << 30, free_floor_bytes=0, clock=clock or Clock())


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[DiskStore]:
    made = open_store(tmp_path, clock)
    yield made
    made.close()


def only_file(root: Path, pattern: str) -> Path:
    (path,) = root.glob(pattern)
    return path


def test_a_rotten_piece_of_a_complete_blob_is_missing_and_the_others_stay(store: DiskStore, tmp_path: Path) -> None:
    rotten: list[tuple[Digest, int]] = []
    store.on_rotten(lambda digest, pieces: rotten.append((digest, pieces)))
    handle = fill(store, BLOB)
    flip(only_file(tmp_path, "blobs/*/*/*"), 4321)
    assert handle.check_pieces(BLOB.layout.full_mask, "scrub") == 1 << 4
    assert (handle.complete, handle.matched, handle.held) == (False, False, BLOB.layout.full_mask ^ 1 << 4)
    assert rotten == [(BLOB.digest, 1 << 4)]
    assert store.counters.rotten == {"scrub": 1}
    handle.close()


def test_a_blob_is_complete_again_once_its_rotten_piece_was_fetched(store: DiskStore, tmp_path: Path) -> None:
    handle = fill(store, BLOB)
    for offset in (0, 9_999):
        flip(only_file(tmp_path, "blobs/*/*/*"), offset)
    assert handle.check_pieces(BLOB.layout.full_mask, "scrub") == 1 << 0 | 1 << 9
    for piece in (0, 9):
        write_piece(handle, BLOB, piece)
    assert handle.check_digest()
    assert only_file(tmp_path, "blobs/*/*/*").read_bytes() == BLOB.content
    assert [path for path in tmp_path.glob("*/*/*/*.held") if path.is_file()] == []
    assert handle.check_pieces(BLOB.layout.full_mask, "scrub") == 0
    handle.close()


def test_a_rotten_piece_stays_missing_over_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    handle = fill(store, BLOB)
    flip(only_file(tmp_path, "blobs/*/*/*"), 2500)
    handle.check_pieces(BLOB.layout.full_mask, "scrub")
    handle.close()
    store.close()
    store = open_store(tmp_path)
    assert [(line.held, line.complete) for line in store.inventory()] == [(BLOB.layout.full_mask ^ 1 << 2, False)]
    again = store.get(BLOB.digest)
    assert again is not None
    write_piece(again, BLOB, 2)
    assert again.check_digest()
    again.close()
    store.close()


def test_a_rotten_piece_that_the_disk_takes_no_note_of_is_not_served_either(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = fill(store, BLOB)
    flip(only_file(tmp_path, "blobs/*/*/*"), 2500)
    real = os.open

    def no_new_files(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_new_files)
        assert handle.check_pieces(BLOB.layout.full_mask, "client") == 1 << 2
    assert (handle.complete, handle.available_from(0)) == (False, 2000)
    # and when there is room again
    write_piece(handle, BLOB, 2)
    assert handle.check_digest()
    assert only_file(tmp_path, "blobs/*/*/*").read_bytes() == BLOB.content
    handle.close()


def test_a_piece_that_cannot_be_read_is_missing(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = fill(store, BLOB)
    real = os.preadv

    def bad_sector(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if 7000 <= offset < 8000:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", bad_sector)
    assert handle.check_pieces(BLOB.layout.full_mask, "client") == 1 << 7
    handle.close()


def test_a_digest_that_fails_for_rot_alone_costs_the_rotten_piece_alone(store: DiskStore, tmp_path: Path) -> None:
    """What rots while the rest still comes is no fault of the origin."""
    handle = fill(store, BLOB, [3, 1])
    flip(only_file(tmp_path, "partial/*/*/*"), 3100)
    for piece in (0, 2, 4, 5, 6, 7, 8, 9):
        write_piece(handle, BLOB, piece)
    assert not handle.check_digest()
    assert handle.held == BLOB.layout.full_mask ^ 1 << 3
    write_piece(handle, BLOB, 3)
    assert handle.check_digest()
    handle.close()


# --- hashes that are gone --------------------------------------------------------------------------------------


def test_without_its_hashes_a_blob_is_held_to_its_digest(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    only_file(tmp_path, "meta/*/*/*.hashes").write_bytes(b"")
    store = open_store(tmp_path)
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert handle.check_pieces(BLOB.layout.full_mask, "scrub") == 0
    # and its hashes are known again: of what rots now, one piece is lost
    flip(only_file(tmp_path, "blobs/*/*/*"), 8_000)
    assert handle.check_pieces(BLOB.layout.full_mask, "scrub") == 1 << 8
    handle.close()
    store.close()


def test_without_its_hashes_a_rotten_blob_is_fetched_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    only_file(tmp_path, "meta/*/*/*.hashes").write_bytes(b"")
    flip(only_file(tmp_path, "blobs/*/*/*"), 8_000)
    store = open_store(tmp_path)
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert handle.check_pieces(1, "scrub") == BLOB.layout.full_mask
    for piece in range(10):
        write_piece(handle, BLOB, piece)
    assert handle.check_digest()
    handle.close()
    store.close()


# --- how long a check counts -----------------------------------------------------------------------------------


def test_what_came_here_is_checked_and_counts_for_a_day(store: DiskStore, clock: Clock) -> None:
    handle = fill(store, BLOB)
    assert handle.unchecked(handle.check_mark()) == 0
    clock.now_s += DAY_S + 1
    assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask
    handle.check_pieces(0b111, "client")
    assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask ^ 0b111
    assert [handle.checked_from(offset, handle.check_mark()) for offset in (0, 999, 2500, 3000)] == [
        3000,
        3000,
        3000,
        3000,
    ]
    handle.close()


def test_nothing_is_checked_after_a_start(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    store = open_store(tmp_path)
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask
    handle.close()
    store.close()


def test_a_check_outlives_the_use_of_the_blob(store: DiskStore) -> None:
    fill(store, BLOB).close()
    again = store.get(BLOB.digest)
    assert again is not None
    assert again.unchecked(again.check_mark()) == 0
    again.close()


def test_every_time_means_since_this_reader_came(tmp_path: Path, clock: Clock) -> None:
    store = DiskStore(tmp_path, size_limit_bytes=1 << 30, free_floor_bytes=0, verify_after_s=0.0, clock=clock)
    handle = fill(store, BLOB)
    clock.now_s += 1
    mark = handle.check_mark()
    assert handle.unchecked(mark) == BLOB.layout.full_mask
    handle.check_pieces(BLOB.layout.full_mask, "client")
    assert handle.unchecked(mark) == 0
    clock.now_s += 1
    assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask
    # a peer checks what it gets by itself
    assert handle.unchecked(handle.check_mark(for_peer=True)) == 0
    handle.close()
    store.close()


def test_a_file_that_somebody_wrote_to_is_not_trusted(store: DiskStore, tmp_path: Path) -> None:
    handle = fill(store, BLOB)
    with only_file(tmp_path, "blobs/*/*/*").open("r+b") as file:
        file.write(b"x")
    assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask
    assert handle.check_pieces(handle.unchecked(handle.check_mark()), "client") == 1
    handle.close()


def test_what_was_read_before_somebody_wrote_to_the_file_counts_for_nothing(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of one reader, and the look of another at the file's times before it has ended."""
    handle = fill(store, BLOB)
    real = os.preadv

    def written_to_meanwhile(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        count = real(descriptor, buffers, offset)
        monkeypatch.undo()
        flip(only_file(tmp_path, "blobs/*/*/*"), 0)
        assert handle.unchecked(handle.check_mark()) == BLOB.layout.full_mask
        return count

    monkeypatch.setattr(os, "preadv", written_to_meanwhile)
    assert handle.check_pieces(1, "client") == 0
    assert handle.unchecked(handle.check_mark(), 1) == 1
    assert handle.check_pieces(1, "client") == 1
    handle.close()


# --- sent from memory ------------------------------------------------------------------------------------------


def read_checked(handle: BlobHandle, piece: int) -> bytes | None:
    content = handle.read_checked(piece)
    return None if content is None else bytes(content)


def test_a_piece_that_two_checks_find_rotten_is_lost_once_and_what_was_fetched_again_stays(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = fill(store, BLOB)
    flip(only_file(tmp_path, "blobs/*/*/*"), 4321)
    read = os.preadv

    def found_and_fetched_meanwhile(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        monkeypatch.undo()
        size_bytes = read(descriptor, buffers, offset)
        assert handle.check_pieces(1 << 4, "client") == 1 << 4
        write_piece(handle, BLOB, 4)
        return size_bytes

    monkeypatch.setattr(os, "preadv", found_and_fetched_meanwhile)
    assert handle.check_pieces(1 << 4, "scrub") == 0
    assert store.counters.rotten == {"client": 1}
    assert handle.held == BLOB.layout.full_mask
    handle.close()


def test_a_piece_in_memory_is_what_was_compared_whatever_becomes_of_the_file(store: DiskStore, tmp_path: Path) -> None:
    handle = fill(store, BLOB)
    content = handle.read_checked(3)
    flip(only_file(tmp_path, "blobs/*/*/*"), 3000)
    assert content is not None
    assert bytes(content) == BLOB.piece(3)
    assert read_checked(handle, 3) is None
    assert (handle.held, store.counters.rotten) == (BLOB.layout.full_mask ^ 1 << 3, {"client": 1})
    assert read_checked(handle, 3) is None
    write_piece(handle, BLOB, 3)
    assert read_checked(handle, 3) == BLOB.piece(3)
    handle.close()


def test_a_piece_whose_hash_is_gone_is_read_once_the_digest_has_spoken_for_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    store.close()
    only_file(tmp_path, "meta/*/*/*.hashes").write_bytes(b"")
    store = open_store(tmp_path)
    handle = store.get(BLOB.digest)
    assert handle is not None
    assert read_checked(handle, 2) is None
    assert (read_checked(handle, 2), handle.complete) == (BLOB.piece(2), True)
    handle.close()
    store.close()


# --- a restart of the machine ----------------------------------------------------------------------------------


def test_a_scrub_does_not_hide_that_somebody_wrote_to_the_file_meanwhile(store: DiskStore, tmp_path: Path) -> None:
    handle = fill(store, BLOB)
    begun_ns = time.time_ns()
    flip(only_file(tmp_path, "blobs/*/*/*"), 0)
    store.note_checked(BLOB.digest, begun_ns)
    assert handle.unchecked(handle.check_mark()) == handle.layout.full_mask
    handle.close()


def test_after_a_restart_of_the_machine_an_unfinished_blob_opens_at_once_and_is_checked_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    fill(store, BLOB, [0, 5]).close()
    store.close()
    meta = only_file(tmp_path, "meta/*/*/*.json")
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "boot_id": "an earlier one"}))
    flip(only_file(tmp_path, "partial/*/*/*"), 5500)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", None)  # a start reads no blob
        store = open_store(tmp_path)
        assert [line.held for line in store.inventory()] == [0b100001]
        handle = store.get(BLOB.digest)
    assert handle is not None
    assert store.unverified() == [BLOB.digest]
    assert handle.unchecked(handle.check_mark()) == 0b100001
    assert handle.check_pieces(handle.held, "scrub") == 0b100000
    assert handle.held == 0b000001
    handle.close()
    store.close()
