"""Seed: what the supernode's store keeps while nodes want it, and how it comes to have room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.queues import UpstreamQueues, ignore
from peer.store.disk import DiskStore
from proto.pieces import MIB, PieceLayout
from proto.wire.messages import Source
from proto.wire.tickets import Identity
from supernode.control.open_swarm import OpenSwarm
from supernode.seed import Seed
from supernode.signer import IdentitySigner
from tests.support.blobs import SomeBlob, fill, some_blob, write_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from supernode.control.piece_hashes import BlobHashes
    from supernode.control.verification import Verification

FIRST, SECOND = some_blob(MIB // 2), some_blob(MIB // 2, seed=2)


class Reports:
    """Stands in for Verification: how fetches from the origin ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[bool] = asyncio.Queue()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    def origin_ended(self, fetch_id: int, swarm: int, *, ok: bool, refused: str, retry_after_s: float) -> None:
        self.ended.put_nowait(ok)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    """Room for one of the two."""
    store = DiskStore(tmp_path, size_limit_bytes=MIB - 1, free_floor_bytes=0)
    yield store
    store.close()


def swarm_of(blob: SomeBlob) -> OpenSwarm:
    swarm = OpenSwarm(1, blob.digest, blob.layout, cast("BlobHashes", None))
    swarm.sources.append(Source("registry.example.com", "library/thing"))
    return swarm


@pytest.mark.asyncio
async def test_a_fetch_waits_for_the_room_of_a_blob_that_is_being_left(store: DiskStore, tmp_path: Path) -> None:
    """A piece of it is still on its way to the last node: the next blob is not left to the nodes for that."""

    def fetch(handle: BlobHandle, *_: object, **__: object) -> None:
        for piece in range(SECOND.layout.count):
            write_piece(handle, SECOND, piece)
        assert handle.check_digest()

    sending, loop = fill(store, FIRST), asyncio.get_running_loop()

    def all_is_sent() -> None:
        loop.call_soon_threadsafe(sending.close)

    store.on_want_of_room(all_is_sent)
    queues, reports, swarm = UpstreamQueues(ignore), Reports(), swarm_of(SECOND)
    seed = Seed(store, mock.Mock(), fetch, queues, IdentitySigner(Identity.generate()), tmp_path)
    seed.report_to(cast("Verification", reports))
    seed.pin(swarm.digest, swarm.layout)
    seed.fetch_from_origin(1, swarm, swarm.layout.full_mask, {})
    try:
        assert await asyncio.wait_for(reports.ended.get(), WAIT_S)
        assert [line.digest for line in store.inventory()] == [SECOND.digest]
        assert store.counters.full.total() == 0
        # Somebody wants it: it stays.
        assert not store.remove(SECOND.digest)
    finally:
        await asyncio.to_thread(seed.close)
        await asyncio.to_thread(queues.close)


@pytest.mark.asyncio
async def test_a_whole_blob_is_not_taken_for_a_swarm_that_is_cut_otherwise(store: DiskStore, tmp_path: Path) -> None:
    fill(store, FIRST).close()
    fetch, queues, reports = mock.Mock(), UpstreamQueues(ignore), Reports()
    other = SomeBlob(FIRST.content, FIRST.digest, PieceLayout(FIRST.layout.size_bytes, 4096), b"")
    swarm = swarm_of(other)
    seed = Seed(store, mock.Mock(), fetch, queues, IdentitySigner(Identity.generate()), tmp_path)
    seed.report_to(cast("Verification", reports))
    seed.fetch_from_origin(1, swarm, swarm.layout.full_mask, {})
    try:
        assert not await asyncio.wait_for(reports.ended.get(), WAIT_S)
        fetch.assert_not_called()
    finally:
        await asyncio.to_thread(seed.close)
        await asyncio.to_thread(queues.close)
