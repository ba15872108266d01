"""What every blob store must do: derive StoreSuite and give it the fixtures `store` and `small_store`.

`store` has room for everything here; `small_store` has room for exactly 10,000 bytes of blobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from peer.store.base import FileSlice, SignedHashes, StoredBlob
from proto.errors import LocalError, PieceCorrupt, StoreFull
from proto.pieces import PieceLayout
from tests.support.blobs import fill, some_blob, write_piece

if TYPE_CHECKING:
    from pathlib import Path

    from peer.store.base import BlobStore, PieceWriter
    from proto.ids import Digest


class StoreSuite:
    """Inherit; 10 pieces of 1,000 bytes unless a test says otherwise."""

    # --- pieces ------------------------------------------------------------------------------------------------

    def test_a_piece_that_matches_its_hash_is_held(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        writer = handle.writer(4)
        writer.write(memoryview(blob.piece(4))[:300])
        assert (writer.remaining_bytes, handle.held) == (700, 0)
        writer.write(memoryview(blob.piece(4))[300:])
        assert writer.finish() == handle.hash_of(4) == blob.hashes[4 * 32 : 5 * 32]
        assert handle.held == 1 << 4
        assert os.pread(handle.fileno(), 1000, 4000) == blob.piece(4)
        handle.close()

    def test_a_piece_that_does_not_match_stays_missing(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        writer = handle.writer(0)
        writer.write(memoryview(bytes(1000)))
        with pytest.raises(PieceCorrupt):
            writer.finish()
        assert handle.held == 0
        write_piece(handle, blob, 0)
        assert handle.held == 1
        handle.close()

    def test_a_piece_that_ends_short_stays_missing(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        writer = handle.writer(0, from_origin=True)
        writer.write(memoryview(blob.piece(0))[:999])
        with pytest.raises(PieceCorrupt):
            writer.finish()
        assert handle.held == 0
        handle.close()

    def test_an_aborted_piece_stays_missing_and_abort_may_be_repeated(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        writer = handle.writer(0, from_origin=True)
        writer.write(memoryview(blob.piece(0)))
        writer.abort()
        writer.abort()
        assert handle.held == 0
        write_piece(handle, blob, 0)
        handle.close()

    def test_a_piece_from_a_peer_needs_a_known_hash(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        with pytest.raises(LocalError):
            handle.writer(0)
        handle.close()

    def test_the_origin_too_is_held_to_a_hash_that_is_known(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, bytes(32))
        with pytest.raises(PieceCorrupt):
            write_piece(handle, blob, 0)
        handle.close()

    def test_the_hash_of_a_piece_from_the_origin_is_known_after(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = fill(store, blob, [7])
        assert handle.hash_of(7) == blob.hashes[7 * 32 : 8 * 32]
        assert handle.hash_of(6) is None
        handle.close()

    def test_available_bytes_run_to_the_first_gap(self, store: BlobStore) -> None:
        blob = some_blob(9_500, piece_size_bytes=1000)
        handle = fill(store, blob, [0, 1, 3, 9])
        found = [handle.available_from(offset) for offset in (0, 1999, 2000, 2500, 3001, 9000, 9499, 9500)]
        assert found == [2000, 2000, 2000, 2500, 4000, 9500, 9500, 9500]
        handle.close()

    # --- slices of files -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("in_kernel", [True, False])
    def test_a_slice_of_a_file_is_taken_as_its_bytes_are(
        self, store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
    ) -> None:
        """The kernel copies within a filesystem; what it does not copy is read and written."""
        copied: list[int] = []
        real = os.copy_file_range

        def copy_file_range(source: int, target: int, count: int, at: int, to: int) -> int:
            if not in_kernel:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            copied.append(count)
            return real(source, target, count, at, to)

        monkeypatch.setattr(os, "copy_file_range", copy_file_range)
        blob = some_blob(10_000, piece_size_bytes=1000)
        file = tmp_path / "elsewhere"
        file.write_bytes(b"before" + blob.content)
        handle = store.open(blob.digest, blob.layout)
        with file.open("rb") as opened:
            for piece in range(10):
                writer = handle.writer(piece, from_origin=True)
                slice_ = FileSlice(opened.fileno(), 6 + 1000 * piece, 1000)
                writer.write(slice_[:300])
                writer.write(slice_[300:])
                writer.finish()
        assert os.pread(handle.fileno(), 10_000, 0) == blob.content
        assert handle.check_digest()
        assert sum(copied) == (10_000 if in_kernel else 0)
        handle.close()

    def test_a_slice_of_a_file_that_was_cut_or_changed_is_no_piece(self, store: BlobStore, tmp_path: Path) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        file = tmp_path / "elsewhere"
        file.write_bytes(bytes(1000) + blob.content[1000:1900])

        def take(writer: PieceWriter, slice_: FileSlice) -> None:
            writer.write(slice_)
            writer.finish()

        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        with file.open("rb") as opened:
            for piece in (0, 1):
                writer = handle.writer(piece)
                with pytest.raises(PieceCorrupt):
                    take(writer, FileSlice(opened.fileno(), 1000 * piece, 1000))
                writer.abort()
        assert handle.held == 0
        handle.close()

    # --- two writers of one piece ------------------------------------------------------------------------------

    def test_the_first_verified_of_two_writers_wins(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        slow, fast = handle.writer(0), handle.writer(0)
        slow.write(memoryview(blob.piece(0))[:500])
        fast.write(memoryview(blob.piece(0)))
        fast.finish()
        assert handle.held == 1
        slow.write(memoryview(blob.piece(0))[500:])
        slow.finish()
        assert os.pread(handle.fileno(), 1000, 0) == blob.piece(0)
        handle.close()

    @pytest.mark.parametrize("corrupt_first", [True, False])
    def test_a_corrupt_writer_never_disturbs_a_verified_piece(self, store: BlobStore, corrupt_first: bool) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        one, other = handle.writer(0), handle.writer(0)
        corrupt, good = (one, other) if corrupt_first else (other, one)
        corrupt.write(memoryview(bytes(500)))
        good.write(memoryview(blob.piece(0)))
        good.finish()
        corrupt.write(memoryview(bytes(500)))
        with pytest.raises(PieceCorrupt):
            corrupt.finish()
        assert (handle.held, os.pread(handle.fileno(), 1000, 0)) == (1, blob.piece(0))
        handle.close()

    def test_many_threads_writing_the_same_pieces(self, store: BlobStore) -> None:
        blob = some_blob(100_000, piece_size_bytes=10_000)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)

        def write_all_pieces() -> None:
            for piece in range(10):
                writer = handle.writer(piece)
                for start in range(0, 10_000, 1000):
                    writer.write(memoryview(blob.piece(piece))[start : start + 1000])
                writer.finish()

        threads = [threading.Thread(target=write_all_pieces) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert handle.check_digest()
        assert os.pread(handle.fileno(), 100_000, 0) == blob.content
        handle.close()

    # --- the digest --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("order", [range(10), range(9, -1, -1), [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_a_blob_is_complete_once_its_digest_matches(
        self, store: BlobStore, order: list[int], algorithm: str
    ) -> None:
        blob = some_blob(9_999, piece_size_bytes=1000, algorithm=algorithm)
        handle = fill(store, blob, order)
        assert [handle.complete, handle.check_digest(), handle.complete] == [False, True, True]
        assert os.pread(handle.fileno(), 10_000, 0) == blob.content
        assert handle.check_digest()
        handle.close()

    def test_a_blob_with_another_digest_is_not_complete(self, store: BlobStore) -> None:
        blob, other = some_blob(10_000, piece_size_bytes=1000), some_blob(10_000, seed=2, piece_size_bytes=1000)
        handle = store.open(other.digest, other.layout)
        for piece in range(10):
            write_piece(handle, blob, piece)
        assert not handle.check_digest()
        assert not handle.complete
        handle.void()
        for piece in range(10):
            write_piece(handle, other, piece)
        assert handle.check_digest()
        handle.close()

    def test_the_digest_of_a_blob_with_gaps_cannot_be_checked(self, store: BlobStore) -> None:
        handle = fill(store, some_blob(10_000, piece_size_bytes=1000), [0])
        with pytest.raises(LocalError):
            handle.check_digest()
        handle.close()

    def test_an_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        blob = some_blob(0)
        handle = store.open(blob.digest, blob.layout)
        assert (handle.held, handle.available_from(0)) == (0, 0)
        assert handle.check_digest()
        handle.close()
        assert store.inventory() == [StoredBlob(blob.digest, blob.layout, 0, True)]

    # --- voiding -----------------------------------------------------------------------------------------------

    def test_void_drops_every_piece_and_hash(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = fill(store, blob, [0, 5])
        handle.learn_hashes(SignedHashes(0, blob.hashes, bytes(64)))
        handle.void()
        assert (handle.held, handle.hash_of(0), handle.signed_hashes) == (0, None, ())
        handle.close()

    def test_a_writer_from_before_a_void_marks_nothing(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = fill(store, blob, [0])
        writer = handle.writer(1, from_origin=True)
        writer.write(memoryview(blob.piece(1)))
        handle.void()
        with pytest.raises(LocalError):
            writer.finish()
        assert handle.held == 0
        handle.close()

    # --- hashes ------------------------------------------------------------------------------------------------

    def test_signed_hashes_are_kept_as_they_came(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        first = SignedHashes(0, blob.hashes[: 4 * 32], b"a" * 64)
        second = SignedHashes(4, blob.hashes[4 * 32 :], b"b" * 64)
        handle.learn_hashes(first)
        handle.learn_hashes(second)
        handle.learn_hashes(first)
        assert handle.signed_hashes == (first, second)
        assert handle.hash_of(9) == blob.hashes[9 * 32 :]
        handle.close()

    def test_a_longer_run_of_signed_hashes_replaces_those_inside_it(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        handle.learn_hashes(SignedHashes(2, blob.hashes[2 * 32 : 3 * 32], b"a" * 64))
        whole = SignedHashes(0, blob.hashes, b"b" * 64)
        handle.learn_hashes(whole)
        assert handle.signed_hashes == (whole,)
        handle.close()

    def test_the_longest_run_with_a_piece_is_what_goes_with_it(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)

        def signed(first: int, count: int) -> SignedHashes:
            run = SignedHashes(first, blob.hashes[first * 32 : (first + count) * 32], bytes([first, count]) * 32)
            handle.learn_hashes(run)
            return run

        signed(2, 1)
        two, one = signed(1, 2), signed(5, 1)
        whole = signed(0, 10)
        assert [handle.signed_run(piece, 4) for piece in range(7)] == [None, two, two, None, None, one, None]
        assert handle.signed_run(1, 1) is None
        assert handle.signed_run(0, 10) == whole
        # What is signed already, in whatever runs, is not kept again.
        signed(5, 2)
        assert handle.signed_run(6, 4) is None
        handle.close()

    def test_hashes_that_contradict_a_held_piece_are_refused(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = fill(store, blob, [0])
        with pytest.raises(PieceCorrupt):
            handle.learn_hashes(SignedHashes(0, bytes(32), bytes(64)))
        assert handle.signed_hashes == ()
        handle.close()

    @pytest.mark.parametrize(("first", "size"), [(10, 32), (9, 64), (0, 31), (-1, 32)])
    def test_hashes_that_do_not_fit_are_refused(self, store: BlobStore, first: int, size: int) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = store.open(blob.digest, blob.layout)
        with pytest.raises(PieceCorrupt):
            handle.trust_hashes(first, bytes(size))
        handle.close()

    # --- the index ---------------------------------------------------------------------------------------------

    def test_the_inventory_lists_partial_and_complete_blobs(self, store: BlobStore) -> None:
        whole, part = some_blob(5_000, piece_size_bytes=1000), some_blob(3_000, piece_size_bytes=1000, seed=2)
        fill(store, whole).close()
        fill(store, part, [1]).close()
        assert sorted(store.inventory(), key=lambda line: line.complete) == [
            StoredBlob(part.digest, part.layout, 0b10, False),
            StoredBlob(whole.digest, whole.layout, 0b11111, True),
        ]

    def test_what_is_not_there_cannot_be_got(self, store: BlobStore) -> None:
        assert store.get(some_blob(1).digest) is None
        assert not store.remove(some_blob(1).digest)

    def test_opening_again_finds_what_is_there(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        fill(store, blob, [3]).close()
        handle = store.open(blob.digest, blob.layout)
        assert handle.held == 1 << 3
        handle.close()
        got = store.get(blob.digest)
        assert got is not None
        assert got.held == 1 << 3
        got.close()

    def test_another_layout_drops_a_partial_blob(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        fill(store, blob, [3]).close()
        handle = store.open(blob.digest, PieceLayout(10_000, 5000))
        assert (handle.held, handle.layout.count) == (0, 2)
        handle.close()

    def test_another_layout_is_refused_while_the_blob_is_in_use(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        handle = fill(store, blob, [3])
        with pytest.raises(LocalError):
            store.open(blob.digest, PieceLayout(10_000, 5000))
        assert handle.held == 1 << 3
        handle.close()

    def test_several_may_want_another_layout_at_once(self, store: BlobStore) -> None:
        blob, other, openers = some_blob(10_000, piece_size_bytes=1000), PieceLayout(10_000, 5000), 4
        together = threading.Barrier(openers)

        def open_anew(_: int) -> PieceLayout:
            together.wait()
            with contextlib.closing(store.open(blob.digest, other)) as handle:
                return handle.layout

        with ThreadPoolExecutor(openers) as threads:
            for _ in range(30):
                fill(store, blob, [3]).close()
                assert list(threads.map(open_anew, range(openers))) == [other] * openers

    def test_a_complete_blob_keeps_its_layout(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=1000)
        fill(store, blob).close()
        handle = store.open(blob.digest, PieceLayout(10_000, 5000))
        assert (handle.complete, handle.layout) == (True, blob.layout)
        handle.close()

    # --- room --------------------------------------------------------------------------------------------------

    def test_the_least_recently_used_blob_is_evicted(self, small_store: BlobStore) -> None:
        evicted: list[Digest] = []
        small_store.on_evicted(evicted.append)
        old, used, new = (some_blob(4_000, seed=seed) for seed in (1, 2, 3))
        fill(small_store, used).close()
        fill(small_store, old).close()
        again = small_store.get(used.digest)
        assert again is not None
        again.close()
        fill(small_store, new).close()
        assert evicted == [old.digest]
        assert {line.digest for line in small_store.inventory()} == {used.digest, new.digest}
        assert small_store.used_bytes == 8_000

    def test_what_is_in_use_is_never_evicted(self, small_store: BlobStore) -> None:
        one, two, three = (some_blob(5_000, seed=seed) for seed in (1, 2, 3))
        handle = fill(small_store, one)
        fill(small_store, two).close()
        fill(small_store, three).close()
        assert {line.digest for line in small_store.inventory()} == {one.digest, three.digest}
        assert not small_store.remove(one.digest)
        assert os.pread(handle.fileno(), 5_000, 0) == one.content
        handle.close()

    def test_what_is_kept_is_evicted_neither_for_room_nor_by_hand(self, small_store: BlobStore) -> None:
        one, two, three = (some_blob(5_000, seed=seed) for seed in (1, 2, 3))
        small_store.keep([one.digest])
        fill(small_store, one).close()
        fill(small_store, two).close()
        fill(small_store, three).close()
        assert {line.digest for line in small_store.inventory()} == {one.digest, three.digest}
        assert not small_store.remove(one.digest)
        small_store.keep([])
        assert small_store.remove(one.digest)

    def test_a_blob_that_does_not_fit_beside_what_is_kept_is_refused(self, small_store: BlobStore) -> None:
        one, two = (some_blob(6_000, seed=seed) for seed in (1, 2))
        small_store.keep([one.digest])
        fill(small_store, one).close()
        with pytest.raises(StoreFull, match="in use or kept"):
            small_store.open(two.digest, two.layout)

    def test_a_blob_in_use_by_a_writer_alone_is_not_evicted(self, small_store: BlobStore) -> None:
        blob, other = some_blob(6_000, piece_size_bytes=6000), some_blob(6_000, seed=2)
        handle = small_store.open(blob.digest, blob.layout)
        writer = handle.writer(0, from_origin=True)
        handle.close()
        with pytest.raises(StoreFull):
            small_store.open(other.digest, other.layout)
        writer.write(memoryview(blob.content))
        writer.finish()
        small_store.open(other.digest, other.layout).close()

    def test_no_room_is_said_at_once_and_costs_nobody_a_blob(self, small_store: BlobStore) -> None:
        blob = some_blob(5_000)
        fill(small_store, blob).close()
        with pytest.raises(StoreFull):
            small_store.open(some_blob(10_001).digest, PieceLayout(10_001, 1024))
        assert [line.digest for line in small_store.inventory()] == [blob.digest]

    def test_room_of_what_is_about_to_be_closed_is_waited_for(self, small_store: BlobStore) -> None:
        """Its last bytes are on their way to a client, or to the disk."""
        first, second = some_blob(6_000), some_blob(6_000, seed=2)
        handle, looks = fill(small_store, first), 0

        def waits_on() -> bool:
            nonlocal looks
            looks += 1
            if looks == 3:
                handle.close()
            return True

        small_store.open(second.digest, second.layout, waits_on=waits_on).close()
        assert looks >= 3
        assert [line.digest for line in small_store.inventory()] == [second.digest]

    def test_room_is_waited_for_as_long_as_the_caller_says(self, small_store: BlobStore) -> None:
        first, second = some_blob(6_000), some_blob(6_000, seed=2)
        looks = iter([True, True, False])
        with contextlib.closing(fill(small_store, first)), pytest.raises(StoreFull):
            small_store.open(second.digest, second.layout, waits_on=lambda: next(looks))

    def test_who_does_not_want_to_wait_may_raise_what_it_likes(self, small_store: BlobStore) -> None:
        first, second, third = some_blob(6_000), some_blob(6_000, seed=2), some_blob(4_000, seed=3)

        def waits_on() -> bool:
            raise LookupError

        with contextlib.closing(fill(small_store, first)):
            with pytest.raises(LookupError):
                small_store.open(second.digest, second.layout, waits_on=waits_on)
            # Where there is room, nobody is asked.
            small_store.open(third.digest, third.layout, waits_on=waits_on).close()
        small_store.open(second.digest, second.layout, waits_on=waits_on).close()

    def test_nothing_is_waited_for_that_is_still_being_fetched(self, small_store: BlobStore) -> None:
        first, second, larger = some_blob(6_000), some_blob(6_000, seed=2), some_blob(10_001, seed=3)
        with contextlib.closing(fill(small_store, first, [0])):
            for blob in (second, larger):
                with pytest.raises(StoreFull):
                    small_store.open(blob.digest, blob.layout, waits_on=lambda: True)

    def test_a_blob_removed_by_hand_is_gone(self, store: BlobStore) -> None:
        evicted: list[Digest] = []
        store.on_evicted(evicted.append)
        blob = some_blob(5_000)
        fill(store, blob).close()
        assert store.remove(blob.digest)
        assert (store.get(blob.digest), store.used_bytes, evicted) == (None, 0, [blob.digest])
        store.open(blob.digest, blob.layout).close()

    def test_closing_a_handle_twice_unpins_once(self, store: BlobStore) -> None:
        blob = some_blob(5_000)
        first, second = fill(store, blob), store.get(blob.digest)
        assert second is not None
        first.close()
        first.close()
        assert not store.remove(blob.digest)
        second.close()
        assert store.remove(blob.digest)
