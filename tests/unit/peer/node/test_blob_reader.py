"""How much of a blob may leave before its digest was checked here."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from peer.node.blobs import BlobFailed, DigestMismatch
from peer.node.open_blobs import LiveBlob
from peer.node.readers import BlobReader
from peer.store.disk import DiskStore
from proto.ids import Digest
from proto.oci.ranges import ByteRange
from proto.pieces import KIB, MIB, PieceLayout
from tests.support.rot import flip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle

PIECE = 256 * KIB


class Opened:
    """A reader of a blob whose pieces are put in by hand."""

    def __init__(self, handle: BlobHandle, content: bytes, ranges: tuple[ByteRange, ...] = ()) -> None:
        self.handle = handle
        self.content = content
        self.told: list[int] = []
        self.closed = 0
        self.live = LiveBlob(handle.digest)
        # From which piece on it had the store checked.
        self.checked: list[int] = []
        self.waits = asyncio.Event()
        self.reader = BlobReader(self.live, handle, self._tell, self._close, self._check, ranges)

    def _close(self) -> None:
        self.closed += 1

    def _tell(self, piece: int) -> None:
        self.told.append(piece)
        self.waits.set()

    def _check(self, first: int, mark: float, ended: Callable[[str], None]) -> None:
        """One piece at a time, at once."""
        self.checked.append(first)
        self.handle.check_pieces(1 << first, "client")
        asyncio.get_running_loop().call_soon(ended, "")

    def put(self, *pieces: int) -> None:
        for piece in pieces:
            writer = self.handle.writer(piece, from_origin=True)
            offset = self.handle.layout.offset(piece)
            writer.write(memoryview(self.content)[offset : offset + self.handle.layout.length(piece)])
            writer.finish()
        self.live.wake()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    made = DiskStore(tmp_path, size_limit_bytes=64 * MIB, free_floor_bytes=0)
    yield made
    made.close()


def open_blob(store: DiskStore, size_bytes: int, ranges: tuple[ByteRange, ...] = ()) -> Opened:
    content = bytes(size_bytes)
    return Opened(store.open(Digest.of(content), PieceLayout(size_bytes, PIECE)), content, ranges)


async def everyone_ran() -> None:
    """Whoever could go on has gone on: nothing here waits for a thread."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("size", "sendable"),
    [
        (3 * PIECE, 2 * PIECE),
        (2 * PIECE + 5, 2 * PIECE + 5 - 64 * KIB),
        (2 * PIECE + 64 * KIB + 1, 2 * PIECE),
    ],
)
async def test_the_last_piece_and_at_least_64_kib_are_withheld(store: DiskStore, size: int, sendable: int) -> None:
    opened = open_blob(store, size)
    opened.put(*range(opened.handle.layout.count))
    assert await opened.reader.wait_available(0) == sendable
    assert opened.handle.check_digest()
    assert await opened.reader.wait_available(sendable) == size
    opened.handle.close()


@pytest.mark.asyncio
async def test_nothing_is_withheld_from_who_reads_ranges(store: DiskStore) -> None:
    opened = open_blob(store, 2 * PIECE + 5, (ByteRange(None, None, suffix=3),))
    opened.put(2)
    assert await opened.reader.wait_available(2 * PIECE + 2) == 2 * PIECE + 5
    opened.handle.close()


@pytest.mark.asyncio
async def test_who_is_sent_all_of_it_in_place_of_ranges_waits_for_the_digest(store: DiskStore) -> None:
    twice = ByteRange(0, 2 * PIECE)
    opened = open_blob(store, 3 * PIECE, (twice, twice))
    opened.put(0, 1, 2)
    assert await opened.reader.wait_available(0) == 2 * PIECE
    opened.handle.close()


@pytest.mark.asyncio
async def test_ranges_that_are_all_of_it_are_the_whole(store: DiskStore) -> None:
    opened = open_blob(store, 3 * PIECE, (ByteRange(0, 4 * PIECE),))
    opened.put(0, 1, 2)
    assert await opened.reader.wait_available(0) == 2 * PIECE
    opened.handle.close()


@pytest.mark.asyncio
async def test_what_is_missing_before_a_range_does_not_keep_it_waiting(store: DiskStore) -> None:
    opened = open_blob(store, 4 * PIECE, (ByteRange(0, 9), ByteRange(2 * PIECE, 2 * PIECE + 9)))
    opened.put(0, 2)
    assert await opened.reader.wait_available(0) == PIECE
    opened.reader.begin(2 * PIECE)
    assert await opened.reader.wait_available(2 * PIECE) == 3 * PIECE
    opened.handle.close()


@pytest.mark.asyncio
async def test_a_blob_of_one_piece_is_sent_after_its_digest_alone(store: DiskStore) -> None:
    opened = open_blob(store, 1000)
    waiting = asyncio.create_task(opened.reader.wait_available(0))
    opened.put(0)
    await everyone_ran()
    assert not waiting.done()
    assert opened.handle.check_digest()
    opened.live.wake()
    assert await waiting == 1000
    opened.handle.close()


@pytest.mark.asyncio
async def test_a_client_does_not_wait_for_the_disk_once_the_digest_has_passed(store: DiskStore) -> None:
    opened = open_blob(store, 3 * PIECE)
    opened.put(*range(3))
    seen: list[tuple[bool, int]] = []
    assert opened.handle.check_digest(lambda: seen.append((opened.handle.complete, opened.reader.available(2 * PIECE))))
    assert seen == [(False, 3 * PIECE)]
    opened.handle.close()


@pytest.mark.asyncio
async def test_the_piece_waited_for_is_told_once(store: DiskStore) -> None:
    opened = open_blob(store, 4 * PIECE)
    waiting = asyncio.create_task(opened.reader.wait_available(PIECE + 3))
    await asyncio.sleep(0)
    opened.put(3)
    await asyncio.sleep(0)
    opened.put(1)
    assert await waiting == 2 * PIECE
    assert opened.told == [1]
    opened.handle.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("mismatch", [False, True])
async def test_a_failure_reaches_who_waits(store: DiskStore, mismatch: bool) -> None:
    opened = open_blob(store, 4 * PIECE)
    waiting = asyncio.create_task(opened.reader.wait_available(0))
    await asyncio.sleep(0)
    opened.reader.fail("gone", mismatch=mismatch)
    opened.live.wake()
    with pytest.raises(DigestMismatch if mismatch else BlobFailed):
        await waiting
    opened.handle.close()


def test_closing_twice_is_closing_once(store: DiskStore) -> None:
    opened = open_blob(store, 10)
    opened.reader.close()
    opened.reader.close()
    assert opened.closed == 1
    opened.handle.close()


@pytest.mark.asyncio
async def test_who_read_of_wrong_content_gets_no_byte_of_what_replaces_it(store: DiskStore) -> None:
    opened = open_blob(store, 4 * PIECE)
    opened.put(0)
    assert await opened.reader.wait_available(0) == PIECE
    opened.reader.fail("the blob's content does not match its digest", mismatch=True)
    opened.handle.void()
    opened.put(0, 1, 2, 3)
    assert opened.handle.check_digest()
    assert opened.reader.available(PIECE) == PIECE
    with pytest.raises(DigestMismatch):
        await opened.reader.wait_available(PIECE)
    opened.handle.close()


# --- what was not checked for long -----------------------------------------------------------------------------


def kept_blob(folder: Path, pieces: int) -> tuple[DiskStore, bytes, Digest]:
    """A store that was opened anew, with a complete blob in it."""
    content = random.Random(pieces).randbytes(pieces * PIECE)
    store = DiskStore(folder, size_limit_bytes=64 * MIB, free_floor_bytes=0)
    opened = Opened(store.open(Digest.of(content), PieceLayout(len(content), PIECE)), content)
    opened.put(*range(pieces))
    assert opened.handle.check_digest()
    opened.handle.close()
    store.close()
    return DiskStore(folder, size_limit_bytes=64 * MIB, free_floor_bytes=0), content, Digest.of(content)


def open_kept(store: DiskStore, digest: Digest, content: bytes) -> Opened:
    handle = store.get(digest)
    assert handle is not None
    return Opened(handle, content)


@pytest.mark.asyncio
async def test_after_a_start_each_piece_is_checked_before_it_is_sent(tmp_path: Path) -> None:
    store, content, digest = kept_blob(tmp_path, 4)
    opened = open_kept(store, digest, content)
    assert (opened.reader.stored, opened.reader.available(0)) == (True, 0)
    reached = 0
    while reached < len(content):
        reached = await opened.reader.wait_available(reached)
        assert reached <= opened.checked[-1] * PIECE + PIECE
    assert opened.checked == [0, 1, 2, 3]
    # and once is enough for whoever comes next
    assert Opened(opened.handle, content).reader.available(3 * PIECE) == 4 * PIECE
    opened.handle.close()
    store.close()


@pytest.mark.asyncio
async def test_of_a_range_that_part_alone_is_checked(tmp_path: Path) -> None:
    store, content, digest = kept_blob(tmp_path, 4)
    opened = open_kept(store, digest, content)
    assert await opened.reader.wait_available(2 * PIECE + 7) == 3 * PIECE
    assert set(opened.checked) <= {2, 3}
    opened.handle.close()
    store.close()


@pytest.mark.asyncio
async def test_a_rotten_piece_is_waited_for_and_the_answer_goes_on(tmp_path: Path) -> None:
    store, content, digest = kept_blob(tmp_path, 4)
    flip(store.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex, PIECE + 9)
    opened = open_kept(store, digest, content)
    assert await opened.reader.wait_available(0) == PIECE
    waiting = asyncio.create_task(opened.reader.wait_available(PIECE))
    await opened.waits.wait()
    assert (opened.told, waiting.done()) == ([1], False)
    opened.put(1)
    assert await waiting >= 2 * PIECE
    opened.handle.close()
    store.close()


@pytest.mark.asyncio
async def test_pieces_that_cannot_be_checked_end_the_answer_from_the_store(tmp_path: Path) -> None:
    store, _, digest = kept_blob(tmp_path, 4)
    handle = store.get(digest)
    assert handle is not None
    live = LiveBlob(digest)

    def trouble(_: int, __: float, ended: Callable[[str], None]) -> None:
        asyncio.get_running_loop().call_soon(ended, "the disk is in trouble")

    reader = BlobReader(live, handle, lambda _: None, lambda: None, trouble)
    with pytest.raises(BlobFailed, match="the disk is in trouble"):
        await reader.wait_available(0)
    handle.close()
    store.close()


@pytest.mark.asyncio
async def test_what_rots_after_it_was_sent_costs_the_answer_its_end(store: DiskStore) -> None:
    """Whether it was right when it left, nobody can tell any more."""
    opened = open_blob(store, 4 * PIECE)
    opened.put(*range(4))
    assert opened.handle.check_digest()
    assert await opened.reader.wait_available(0) == 3 * PIECE
    with (store.root / "blobs" / "sha256" / opened.handle.digest.hex[:2] / opened.handle.digest.hex).open(
        "r+b"
    ) as file:
        file.write(b"x")
    with pytest.raises(DigestMismatch):
        await opened.reader.wait_available(3 * PIECE)
    opened.handle.close()


@pytest.mark.asyncio
async def test_what_rots_before_it_is_sent_is_fetched_again(store: DiskStore) -> None:
    opened = open_blob(store, 4 * PIECE)
    opened.put(*range(4))
    assert opened.handle.check_digest()
    assert await opened.reader.wait_available(0) == 3 * PIECE
    flip(store.root / "blobs" / "sha256" / opened.handle.digest.hex[:2] / opened.handle.digest.hex, 3 * PIECE)
    waiting = asyncio.create_task(opened.reader.wait_available(3 * PIECE))
    await opened.waits.wait()
    opened.put(3)
    assert opened.handle.check_digest()
    opened.live.wake()
    assert await waiting == 4 * PIECE
    opened.handle.close()


@pytest.mark.asyncio
async def test_a_piece_that_was_fetched_again_before_it_was_sent_does_not_count_as_lost(tmp_path: Path) -> None:
    store, content, digest = kept_blob(tmp_path, 4)
    flip(store.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex, PIECE)
    opened = open_kept(store, digest, content)
    assert await opened.reader.wait_available(0) == PIECE
    waiting = asyncio.create_task(opened.reader.wait_available(PIECE))
    await opened.waits.wait()
    opened.put(1)
    reached = await waiting
    assert opened.handle.check_digest()
    while reached < len(content):
        reached = await opened.reader.wait_available(reached)
    opened.handle.close()
    store.close()


# --- what is checked every time, from memory, by whoever sends it ----------------------------------------------


@pytest.mark.asyncio
async def test_what_is_checked_as_it_is_sent_is_not_checked_before_and_goes_on_after_rot(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, size_limit_bytes=64 * MIB, free_floor_bytes=0, verify_after_s=0.0)
    opened = open_blob(store, 4 * PIECE)
    opened.put(*range(4))
    assert await opened.reader.wait_available(0) == 3 * PIECE
    assert opened.handle.check_digest()
    flip(store.root / "blobs" / "sha256" / opened.handle.digest.hex[:2] / opened.handle.digest.hex, PIECE)
    assert opened.handle.read_checked(1) is None
    # It was right when it left: what is sent later does not depend on it, but for the digest of the whole.
    assert (opened.reader.available(2 * PIECE), opened.reader.available(3 * PIECE)) == (3 * PIECE, 3 * PIECE)
    opened.put(1)
    assert opened.handle.check_digest()
    assert (opened.reader.available(3 * PIECE), opened.checked) == (4 * PIECE, [])
    opened.handle.close()
    store.close()
