"""The scrub: what is due and what is suspected is read, rot is found, and a start does not begin all over."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import wait_until
from peer.store.disk import DiskStore
from peer.store.scrub import Scrub
from tests.support.blobs import fill, some_blob
from tests.support.rot import flip, stored_path

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.blobs import SomeBlob

BLOB = some_blob(10_000, piece_size_bytes=1000)
OTHER = some_blob(10_000, piece_size_bytes=1000, seed=2)
WEEK_S = 7 * 86_400.0
FAST = 1 << 30


def path_of(root: Path, blob: SomeBlob) -> Path:
    return stored_path(root, str(blob.digest))


def age(root: Path, blob: SomeBlob, seconds: float) -> None:
    """Its last check was that long ago, for the store that opens next."""
    then_ns = time.time_ns() - int(seconds * 1e9)
    os.utime(path_of(root, blob), ns=(then_ns, then_ns))


def reopened(root: Path) -> DiskStore:
    return DiskStore(root / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)


def keep(root: Path, *blobs: SomeBlob) -> None:
    """Leave a closed store with these blobs."""
    store = reopened(root)
    for blob in blobs:
        fill(store, blob).close()
    store.close()


def test_what_was_not_checked_for_a_week_is_read_and_rot_is_dropped(tmp_path: Path) -> None:
    keep(tmp_path, BLOB, OTHER)
    flip(path_of(tmp_path, BLOB), 3_300)
    age(tmp_path, BLOB, WEEK_S + 60)
    again = reopened(tmp_path)
    scrub = Scrub(again, interval_s=WEEK_S, rate_bytes_s=FAST)
    wait_until(lambda: again.counters.rotten == {"scrub": 1}, "the scrub to find the rotten piece")
    wait_until(lambda: again.counters.scrubbed_bytes == 10_000, "the rest of the blob to be read")
    scrub.close()
    assert {line.digest: line.complete for line in again.inventory()} == {BLOB.digest: False, OTHER.digest: True}
    again.close()


def test_a_check_counts_for_the_next_start_too(tmp_path: Path) -> None:
    keep(tmp_path, BLOB)
    age(tmp_path, BLOB, WEEK_S + 60)
    again = reopened(tmp_path)
    before_s = time.time()
    scrub = Scrub(again, interval_s=WEEK_S, rate_bytes_s=FAST)
    wait_until(lambda: (again.oldest_check() or (None, 0.0))[1] >= before_s - 1, "the scrub to be done")
    scrub.close()
    again.close()
    third = reopened(tmp_path)
    oldest = third.oldest_check()
    assert oldest is not None
    assert oldest[1] >= before_s - 1
    third.close()


def test_what_is_suspected_is_read_at_once(tmp_path: Path) -> None:
    keep(tmp_path, BLOB)
    store = reopened(tmp_path)
    scrub = Scrub(store, interval_s=WEEK_S, rate_bytes_s=1)
    flip(path_of(tmp_path, BLOB), 0)
    flip(path_of(tmp_path, BLOB), 5_000)
    scrub.suspect(BLOB.digest, 1 << 5)
    wait_until(lambda: store.counters.rotten == {"complaint": 1}, "the doubted piece to be read")
    scrub.suspect(BLOB.digest)
    wait_until(lambda: store.counters.rotten == {"complaint": 2}, "the whole blob to be read")
    scrub.close()
    store.close()


def test_a_slow_scrub_ends_at_once_when_it_is_closed(tmp_path: Path) -> None:
    keep(tmp_path, BLOB)
    age(tmp_path, BLOB, WEEK_S + 60)
    again = reopened(tmp_path)
    scrub = Scrub(again, interval_s=WEEK_S, rate_bytes_s=1)
    wait_until(lambda: again.counters.scrubbed_bytes == 1000, "the first piece")
    scrub.close()
    assert again.counters.scrubbed_bytes == 1000
    again.close()


def test_without_an_interval_nothing_is_due(tmp_path: Path) -> None:
    keep(tmp_path, BLOB, OTHER)
    age(tmp_path, BLOB, WEEK_S + 60)
    again = reopened(tmp_path)
    scrub = Scrub(again, interval_s=0.0, rate_bytes_s=FAST)
    scrub.suspect(OTHER.digest)
    wait_until(lambda: again.counters.scrubbed_bytes > 0, "the suspected blob to be read")
    scrub.close()
    oldest = again.oldest_check()
    assert oldest is not None
    assert oldest[0] == BLOB.digest
    again.close()
