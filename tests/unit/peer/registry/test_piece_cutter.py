"""The sink of an origin fetch, over a real store: pieces appear as soon as they are whole, in any order."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.registry.piece_cutter import PieceCutter
from peer.store.disk import DiskStore
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.pieces import PieceLayout, indices, mask_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle

CONTENT = bytes(i * 7 % 253 for i in range(10_300))
LAYOUT = PieceLayout(len(CONTENT), 1024)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    opened = DiskStore(tmp_path, size_limit_bytes=1 << 30, free_floor_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def handle(store: DiskStore) -> Iterator[BlobHandle]:
    opened = store.open(DIGEST, LAYOUT)
    yield opened
    opened.close()


def write_range(cutter: PieceCutter, start: int, end: int, step: int, content: bytes = CONTENT) -> None:
    for offset in range(start, end, step):
        cutter.write(offset, memoryview(content)[offset : min(offset + step, end)])


def test_each_piece_is_told_of_when_its_last_byte_came(handle: BlobHandle) -> None:
    told: list[tuple[int, bytes]] = []
    cutter = PieceCutter(handle, lambda piece, piece_hash: told.append((piece, piece_hash)))
    cutter.write(0, memoryview(CONTENT)[:1023])
    assert told == []
    cutter.write(1023, memoryview(CONTENT)[1023:2048])
    cutter.close()
    assert told == [(i, blake3.blake3(CONTENT[i * 1024 : (i + 1) * 1024]).digest()) for i in range(2)]
    assert handle.held == 0b11


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4000), st.integers(0, LAYOUT.full_mask), st.integers(1, 10))
def test_windows_written_beside_each_other_make_the_whole_blob(
    store: DiskStore, step: int, already_held: int, border: int
) -> None:
    handle = store.open(DIGEST, LAYOUT)
    handle.void()
    told: list[int] = []
    before = PieceCutter(handle, lambda piece, _: None)
    for start, end in LAYOUT.byte_ranges(already_held):
        write_range(before, start, end, step)
    before.close()
    cutter = PieceCutter(handle, lambda piece, _: told.append(piece))
    missing = LAYOUT.full_mask & ~already_held
    halves = [missing & mask_of(range(border)), missing & ~mask_of(range(border))]

    def write_half(half: int) -> None:
        for start, end in LAYOUT.byte_ranges(half):
            write_range(cutter, start, end, step)

    threads = [threading.Thread(target=write_half, args=(half,)) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cutter.close()
    assert sorted(told) == list(indices(missing))
    assert handle.check_digest()
    handle.close()
    store.remove(DIGEST)


def test_wrong_content_is_found_by_the_digest(handle: BlobHandle) -> None:
    cutter = PieceCutter(handle, lambda piece, _: None)
    write_range(cutter, 0, len(CONTENT), 700, content=bytes(len(CONTENT)))
    cutter.close()
    assert not handle.check_digest()


def test_a_piece_that_is_not_whole_is_forgotten(handle: BlobHandle) -> None:
    cutter = PieceCutter(handle, lambda piece, _: None)
    cutter.write(0, memoryview(CONTENT)[:1500])
    cutter.close()
    cutter.close()
    assert handle.held == 0b1


def test_bytes_that_differ_from_a_known_hash_are_the_origins_fault(handle: BlobHandle) -> None:
    handle.trust_hashes(0, blake3.blake3(CONTENT[:1024]).digest())
    cutter = PieceCutter(handle, lambda piece, _: None)
    with pytest.raises(UpstreamError) as caught:
        cutter.write(0, memoryview(bytes(1024)))
    cutter.close()
    assert caught.value.kind is UpstreamKind.CONTENT
    assert handle.held == 0
