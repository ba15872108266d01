"""Blobs that stay open between two requests, and not for longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from peer.transport.open_handles import KEPT_S, OpenHandles
from proto.errors import StoreFull
from tests.support.blobs import fill, some_blob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOB = some_blob(10_000, piece_size_bytes=4096)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    store = DiskStore(tmp_path, size_limit_bytes=1 << 20, free_floor_bytes=0)
    fill(store, BLOB).close()
    yield store
    store.close()


def test_the_next_request_has_the_handle_of_the_last(store: DiskStore) -> None:
    handles = OpenHandles(store)
    first = handles.take(BLOB.digest)
    assert first is not None
    handles.give(first)
    assert handles.take(BLOB.digest) is first
    # Two at a time are two.
    second = handles.take(BLOB.digest)
    assert second is not None
    assert second is not first
    for each in (first, second):
        handles.give(each)
    handles.close()
    assert store.remove(BLOB.digest)


def test_what_nobody_takes_for_a_moment_is_closed(store: DiskStore) -> None:
    handles = OpenHandles(store)
    handle = handles.take(BLOB.digest)
    assert handle is not None
    handles.give(handle)
    handles.close_idle(time.monotonic() - KEPT_S)
    assert handles.take(BLOB.digest) is handle
    handles.give(handle)
    handles.close_idle(time.monotonic() + KEPT_S)
    other = handles.take(BLOB.digest)
    assert other is not None
    assert other is not handle
    other.close()


def test_what_is_kept_open_makes_room_for_another_blob(store: DiskStore) -> None:
    """The node's own next pull is not refused, nor sent to the origin, for the sake of a moment's work saved."""
    handles = OpenHandles(store)
    handle = handles.take(BLOB.digest)
    assert handle is not None
    handles.give(handle)
    large = some_blob(1 << 20, seed=4)
    store.open(large.digest, large.layout).close()
    assert [line.digest for line in store.inventory()] == [large.digest]


def test_what_is_kept_open_makes_way_where_the_disk_is_full(store: DiskStore) -> None:
    handles = OpenHandles(store)
    handle = handles.take(BLOB.digest)
    assert handle is not None
    handles.give(handle)
    assert store.make_room(BLOB.layout.size_bytes)
    assert store.inventory() == []


def test_a_blob_that_is_being_sent_does_not_make_room(store: DiskStore) -> None:
    handles = OpenHandles(store)
    handle = handles.take(BLOB.digest)
    assert handle is not None
    large = some_blob(1 << 20, seed=4)
    with pytest.raises(StoreFull):
        store.open(large.digest, large.layout)
    assert store.counters.full["limit"] == 1
    handles.give(handle)
    handles.close()


def test_after_the_end_nothing_is_kept(store: DiskStore) -> None:
    handles = OpenHandles(store)
    handle = handles.take(BLOB.digest)
    assert handle is not None
    handles.close()
    handles.give(handle)
    assert store.remove(BLOB.digest)


def test_of_a_blob_that_is_not_there_nothing_is_taken(store: DiskStore) -> None:
    assert OpenHandles(store).take(some_blob(10, seed=9).digest) is None


def test_a_blob_that_is_not_complete_is_not_kept(store: DiskStore) -> None:
    partial = some_blob(10_000, piece_size_bytes=4096, seed=3)
    store.open(partial.digest, partial.layout).close()
    handles = OpenHandles(store)
    handle = handles.take(partial.digest)
    assert handle is not None
    handles.give(handle)
    assert store.remove(partial.digest)
