"""What is done in threads for the downloader, where it outlasts the downloader's own pin on a blob."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.downloader.contract import AskHoldings, Event, Holder, HoldingsKnown, OpenInStore
from peer.metrics import Metrics
from peer.node.workers import Workers
from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from peer.transport.wire import encode_hashes
from proto.ids import peer_name
from proto.pieces import MIB
from proto.wire.tickets import Identity, sign_hashes
from tests.support.blobs import fill, some_blob

if TYPE_CHECKING:
    from pathlib import Path

    from peer.store.base import BlobHandle
    from peer.transport.base import Transport

BLOB = some_blob(10_000, piece_size_bytes=1000)


@pytest.mark.parametrize("evicted", [False, True])
def test_a_question_that_outlasts_the_pin_of_its_blob_opens_no_file_again(tmp_path: Path, evicted: bool) -> None:
    store = DiskStore(tmp_path, size_limit_bytes=MIB, free_floor_bytes=0)
    handle = fill(store, BLOB, [0])
    supernode = Identity.generate()
    signature = sign_hashes(supernode, BLOB.digest, BLOB.layout, 0, BLOB.hashes)
    transport = mock.Mock()

    def hashes(*_: object) -> bytes:
        handle.close()
        if evicted:
            store.remove(BLOB.digest)
        return encode_hashes(BLOB.layout, (SignedHashes(0, BLOB.hashes, signature),))

    transport.hashes = hashes
    transport.bitfield.return_value = (BLOB.layout, 1)
    work = Workers(store, cast("Transport", transport), mock.Mock(), mock.Mock(), Metrics())
    known = threading.Event()

    def post(event: Event) -> None:
        if isinstance(event, HoldingsKnown):
            known.set()

    question = AskHoldings(1, BLOB.digest, Holder(peer_name(supernode.peer), "127.0.0.1:1"), hashes=True)
    work.ask_holdings(question, b"t", supernode.peer, post)
    assert known.wait(WAIT_S)
    work.close()
    store.remove(BLOB.digest)
    store.close()
    assert not list(tmp_path.rglob("*.hashes"))


def test_a_blob_waits_for_the_room_of_one_whose_reader_is_about_to_leave(tmp_path: Path) -> None:
    """Refused, it would come from the origin once more: to this node, and to every node in the same place."""
    first, second = some_blob(MIB // 2), some_blob(MIB // 2, seed=2)
    store = DiskStore(tmp_path, size_limit_bytes=MIB - 1, free_floor_bytes=0)
    reader = fill(store, first)
    work = Workers(store, mock.Mock(), mock.Mock(), mock.Mock(), Metrics())
    opened: SimpleQueue[BlobHandle | str] = SimpleQueue()
    command = OpenInStore(second.digest, second.layout.size_bytes, second.layout.piece_size_bytes)
    work.open(command, lambda digest, layout, result: opened.put(result))
    # What needs no room does not stand behind it.
    again = OpenInStore(first.digest, first.layout.size_bytes, first.layout.piece_size_bytes)
    work.open(again, lambda digest, layout, result: opened.put(result))
    same = opened.get(timeout=WAIT_S)
    assert not isinstance(same, str), same
    assert same.digest == first.digest
    same.close()
    reader.close()
    handle = opened.get(timeout=WAIT_S)
    assert not isinstance(handle, str), handle
    assert store.counters.full.total() == 0
    handle.close()
    work.close()
    store.close()


def test_no_blob_stands_behind_many_that_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.node.workers.ROOM_WAIT_S", float("inf"))
    held, *others = (some_blob(MIB // 2, seed=seed) for seed in range(1, 20))
    store = DiskStore(tmp_path, size_limit_bytes=MIB - 1, free_floor_bytes=0)
    reader = fill(store, held)
    work = Workers(store, mock.Mock(), mock.Mock(), mock.Mock(), Metrics())
    opened: SimpleQueue[BlobHandle | str] = SimpleQueue()
    for blob in (*others, held):
        command = OpenInStore(blob.digest, blob.layout.size_bytes, blob.layout.piece_size_bytes)
        work.open(command, lambda digest, layout, result: opened.put(result))
    hit = opened.get(timeout=WAIT_S)
    assert not isinstance(hit, str), hit
    assert hit.digest == held.digest
    hit.close()
    work.close()
    reader.close()
    store.close()


def test_the_end_waits_for_no_room(tmp_path: Path) -> None:
    first, second = some_blob(MIB // 2), some_blob(MIB // 2, seed=2)
    store = DiskStore(tmp_path, size_limit_bytes=MIB - 1, free_floor_bytes=0)
    reader = fill(store, first)
    work = Workers(store, mock.Mock(), mock.Mock(), mock.Mock(), Metrics())
    opened: SimpleQueue[BlobHandle | str] = SimpleQueue()
    command = OpenInStore(second.digest, second.layout.size_bytes, second.layout.piece_size_bytes)
    work.open(command, lambda digest, layout, result: opened.put(result))
    work.close()
    assert opened.empty() or "does not fit" in str(opened.get())
    reader.close()
    store.close()
