"""A disk that is really full: a tmpfs of a few megabytes."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from proto.errors import StoreFull
from tests.support.blobs import fill, some_blob, write_piece

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from tests.support.blobs import SomeBlob

MIB = 1 << 20
PIECE_BYTES = 256 * 1024

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four MiB in all."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "layercast-test", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def fill_up(disk: Path) -> Path:
    """Not a byte is free after this; the file that takes them all."""
    hog = disk / "hog"
    with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    return hog


def write_pieces(handle: BlobHandle, blob: SomeBlob) -> None:
    for piece in range(blob.layout.count):
        write_piece(handle, blob, piece)


def test_a_full_disk_costs_the_piece_alone(small_disk: Path) -> None:
    store = DiskStore(small_disk / "store", size_limit_bytes=100 * MIB, free_floor_bytes=0)
    blob = some_blob(3 * MIB, piece_size_bytes=PIECE_BYTES)
    handle = fill(store, blob, [0, 1])
    hog = fill_up(small_disk)
    with pytest.raises(StoreFull, match="free"):
        write_piece(handle, blob, 2)
    assert handle.held == 0b11
    hog.unlink()
    write_pieces(handle, blob)
    assert handle.check_digest()
    handle.close()
    store.close()


def test_a_full_disk_evicts_what_nobody_uses(small_disk: Path) -> None:
    store = DiskStore(small_disk / "store", size_limit_bytes=100 * MIB, free_floor_bytes=0)
    old = some_blob(2 * MIB, piece_size_bytes=PIECE_BYTES, seed=1)
    fill(store, old).close()
    blob = some_blob(MIB, piece_size_bytes=PIECE_BYTES, seed=2)
    handle = store.open(blob.digest, blob.layout)
    fill_up(small_disk)
    write_pieces(handle, blob)
    assert handle.check_digest()
    assert store.get(old.digest) is None
    handle.close()
    store.close()


def test_a_blob_that_the_disk_cannot_take_is_refused_at_once(small_disk: Path) -> None:
    store = DiskStore(small_disk / "store", size_limit_bytes=100 * MIB, free_floor_bytes=0)
    blob = some_blob(5 * MIB, piece_size_bytes=PIECE_BYTES)
    with pytest.raises(StoreFull):
        store.open(blob.digest, blob.layout)
    assert store.inventory() == []
    store.close()


def test_what_unfinished_blobs_will_take_is_not_promised_twice(small_disk: Path) -> None:
    store = DiskStore(small_disk / "store", size_limit_bytes=100 * MIB, free_floor_bytes=0)
    one, two = (some_blob(2 * MIB + PIECE_BYTES, piece_size_bytes=PIECE_BYTES, seed=seed) for seed in (1, 2))
    handle = store.open(one.digest, one.layout)
    with pytest.raises(StoreFull):
        store.open(two.digest, two.layout)
    handle.close()
    # Nobody uses the first any more: it makes way.
    store.open(two.digest, two.layout).close()
    assert [line.digest for line in store.inventory()] == [two.digest]
    store.close()


def test_the_free_floor_holds_while_pieces_arrive(small_disk: Path) -> None:
    store = DiskStore(small_disk / "store", size_limit_bytes=100 * MIB, free_floor_bytes=MIB)
    blob = some_blob(2 * MIB, piece_size_bytes=PIECE_BYTES)
    handle = store.open(blob.digest, blob.layout)
    (small_disk / "hog").write_bytes(bytes(2 * MIB))
    with pytest.raises(StoreFull, match="floor"):
        write_pieces(handle, blob)
    handle.close()
    store.close()
