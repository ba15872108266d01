"""What outlives the supernode, and what it takes from peers: pieces, and blobs that they completed alone."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.registry.retry import Retry
from peer.store.disk import DiskStore
from proto.ids import Digest
from proto.pieces import MIB, PieceLayout, mask_to_bytes
from proto.wire.messages import (
    Announce,
    Failed,
    FetchReason,
    Grant,
    OriginStatus,
    OriginTried,
    Source,
    Stored,
    SwarmOpened,
    Voided,
    Vouched,
)
from proto.wire.tickets import Identity
from supernode.scheduler.contract import Pace
from supernode.state.sqlite import SqliteState
from tests.support.blobs import SomeBlob, fill, some_blob
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.supernode.harness import REPOSITORY, BarePeer, RealPeer, real_peer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


async def test_leases_are_told_without_the_epoch(tmp_path: Path, origin: FakeOrigin) -> None:
    for start in (1, 2):
        digest = origin.add(random.Random(start).randbytes(300_000))
        async with (
            running_supernode(tmp_path / "s", origin) as supernode,
            BarePeer.connected(supernode) as peer,
        ):
            assert peer.challenge.epoch == start
            await peer.announce(origin, digest)
            first = await peer.expect(Grant)
            await peer.send(Failed(first.lease, FetchReason.CONNECTION))
            again = await peer.expect(Grant)
            # The report was taken for that lease: its piece is granted anew.
            while again.piece != first.piece:
                again = await peer.expect(Grant)
            assert 1 <= first.lease < again.lease < 100


async def test_the_epoch_grows_and_the_identity_stays(tmp_path: Path, origin: FakeOrigin) -> None:
    seen = []
    for _ in range(2):
        async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
            seen.append((peer.challenge.epoch, peer.challenge.supernode))
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert seen[0][1] == seen[1][1]


async def test_after_a_restart_the_store_serves_and_the_origin_rests(tmp_path: Path, origin: FakeOrigin) -> None:
    blob = some_blob(3 * MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    for name in ("a", "b"):
        async with (
            running_supernode(tmp_path / "s", origin) as supernode,
            real_peer(supernode, tmp_path / name) as peer,
        ):
            await peer.announce(origin, blob.digest)
            await peer.completed(blob.digest)
            if not peer.of(Vouched):
                await peer.expect(Vouched)
            asked = len(origin.asked)
    assert len(origin.asked) == asked
    assert len(origin.blob_requests("HEAD")) == 1


async def test_without_its_state_the_supernode_goes_by_the_cut_that_its_store_has(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    """It was cut by what links carried, of which nothing is known now; and a whole blob cannot be cut anew."""
    blob = some_blob(3 * MIB, piece_size_bytes=MIB)
    origin.add(blob.content)
    store = DiskStore(tmp_path / "s" / "store", size_limit_bytes=1 << 32, free_floor_bytes=0)
    fill(store, blob).close()
    store.close()
    async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
        await peer.announce(origin, blob.digest)
        await peer.completed(blob.digest)
    assert len(origin.blob_requests("GET")) == 1


async def test_without_its_store_the_supernode_takes_the_pieces_from_a_peer(tmp_path: Path, origin: FakeOrigin) -> None:
    blob = some_blob(3 * MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    holder = Identity.generate()
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p", holder) as peer,
    ):
        await peer.announce(origin, blob.digest)
        await peer.completed(blob.digest)
    asked = len(origin.asked)
    shutil.rmtree(tmp_path / "s" / "store")
    # However long a busy machine takes until that peer is back.
    async with (
        running_supernode(tmp_path / "s", origin, "--recovery", "10m") as supernode,
        real_peer(supernode, tmp_path / "q") as other,
    ):
        await other.announce(origin, blob.digest)
        await other.expect(SwarmOpened)
        async with real_peer(supernode, tmp_path / "p", holder) as peer:
            handle = peer.store.get(blob.digest)
            assert handle is not None
            await peer.announce(origin, blob.digest, wanted=False, handle=handle)
            await other.completed(blob.digest)
            handle.close()
    assert len(origin.asked) == asked


async def test_pieces_that_nobody_brings_back_are_asked_of_the_origin(tmp_path: Path, origin: FakeOrigin) -> None:
    blob = some_blob(3 * MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
        await peer.announce(origin, blob.digest)
        await peer.completed(blob.digest)
    shutil.rmtree(tmp_path / "s" / "store")
    asked = len(origin.asked)
    started_s = time.monotonic()
    async with (
        running_supernode(tmp_path / "s", origin, "--recovery", "1s") as supernode,
        real_peer(supernode, tmp_path / "q") as other,
    ):
        await other.announce(origin, blob.digest)
        await asyncio.to_thread(wait_until, lambda: len(origin.asked) > asked)
        assert time.monotonic() - started_s >= 1.0
        await other.completed(blob.digest)


async def test_a_half_fetched_blob_goes_on_at_its_missing_pieces(tmp_path: Path, origin: FakeOrigin) -> None:
    blob = some_blob(2 * MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    origin.faults = [Fault(), Fault(stall_after_bytes=MIB)]
    async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
        await peer.announce(origin, blob.digest)
        while len(peer.of(Grant)) < 4:
            await peer.expect(Grant)
    before = len(origin.blob_requests())
    async with (
        running_supernode(tmp_path / "s", origin, "--recovery", "0ms") as supernode,
        real_peer(supernode, tmp_path / "q") as peer,
    ):
        await peer.announce(origin, blob.digest)
        await peer.completed(blob.digest)
    again = origin.blob_requests()[before:]
    assert all(asked.range is not None and not asked.range.startswith("bytes=0-") for asked in again)


async def announce_alone(peer: RealPeer, origin: FakeOrigin, blob: SomeBlob) -> None:
    """As a peer that brought the blob from upstream by itself."""
    handle = await asyncio.to_thread(fill, peer.store, blob)
    peer.key = peer.challenge.supernode
    await peer.announce(origin, blob.digest, wanted=False, handle=handle)
    handle.close()


async def test_what_a_peer_completed_alone_is_taken_and_checked(tmp_path: Path, origin: FakeOrigin) -> None:
    blob = some_blob(MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p") as alone,
        real_peer(supernode, tmp_path / "q") as other,
    ):
        await announce_alone(alone, origin, blob)
        await alone.expect(SwarmOpened)
        await other.announce(origin, blob.digest)
        await other.completed(blob.digest)
    assert origin.blob_requests() == []


async def test_a_peer_that_offers_other_content_is_found_out_before_anybody_gets_it(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    good = some_blob(MIB, piece_size_bytes=MIB // 4)
    bad = some_blob(MIB, piece_size_bytes=MIB // 4, seed=2)
    origin.add(good.content)
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p") as liar,
        real_peer(supernode, tmp_path / "q") as other,
    ):
        handle = liar.store.open(good.digest, good.layout)
        for piece in range(good.layout.count):
            writer = handle.writer(piece, from_origin=True)
            writer.write(memoryview(bad.piece(piece)))
            writer.finish()
        liar.key = liar.challenge.supernode
        await liar.announce(origin, good.digest, wanted=False, handle=handle)
        await liar.expect(SwarmOpened)
        await other.announce(origin, good.digest)
        await other.completed(good.digest)
        assert other.of(Voided) == []
        # A lying origin may have given it what it gave: it drops that, and is not put aside.
        await liar.expect(Voided)
        assert not supernode._control.nodes.quarantined
        handle.close()


async def test_who_reports_a_failure_is_known_to_fail_until_a_piece_came(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(random.Random(1).randbytes(300_000))
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        number = (await peer.expect(SwarmOpened)).swarm
        swarm = supernode._control.swarms.numbered(number)
        assert swarm is not None
        (member,) = swarm.members.values()
        first = await peer.expect(Grant)
        await peer.send(Failed(first.lease, FetchReason.CONNECTION))
        await asyncio.to_thread(wait_until, lambda: member.failing, "the failure was heard of")
        again = await peer.expect(Grant)
        await peer.send(Stored(again.lease, number, again.piece, 1))
        await asyncio.to_thread(wait_until, lambda: not member.failing, "a piece came")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An origin that is unavailable is given up at its first failure."""
    monkeypatch.setattr(Retry, "delay_s", lambda *_: None)


@pytest.mark.usefixtures("impatient")
async def test_an_unreachable_origin_elects_one_peer_then_another(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(random.Random(1).randbytes(300_000))
    origin.faults = [Fault(), *(Fault(status=503) for _ in range(50))]
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as first,
        BarePeer.connected(supernode) as second,
    ):
        await first.announce(origin, digest)
        status = await first.expect(OriginStatus)
        assert (status.state, status.elected) == ("unreachable", True)
        await second.announce(origin, digest)
        await second.expect(SwarmOpened)
        await first.send(OriginTried(status.swarm, "unavailable"))
        status = await second.expect(OriginStatus)
        assert (status.state, status.elected) == ("unreachable", True)
        await second.send(OriginTried(status.swarm, "unavailable"))
        while (await first.expect(OriginStatus)).state != "open":
            pass


@pytest.mark.usefixtures("impatient")
async def test_pieces_whose_hash_nobody_knows_are_no_copies_yet(tmp_path: Path, origin: FakeOrigin) -> None:
    """An elected peer reports what it brings; nobody is sent to it before its hashes are there."""
    digest = origin.add(random.Random(1).randbytes(600_000))
    origin.faults = [Fault(), *(Fault(status=503) for _ in range(50))]
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as first,
        BarePeer.connected(supernode) as second,
    ):
        await first.announce(origin, digest)
        status = await first.expect(OriginStatus)
        await second.announce(origin, digest)
        await second.expect(SwarmOpened)
        await first.send(Stored(0, status.swarm, 0, 0))
        await first.heard()
        # Whatever it led to has left for the second by now.
        await second.heard()
        assert second.of(Grant) == []


@pytest.mark.usefixtures("impatient")
async def test_what_an_elected_peer_brought_is_not_asked_of_the_origin_again(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    blob = some_blob(MIB, piece_size_bytes=MIB // 4)
    origin.add(blob.content)
    origin.faults = [Fault(), Fault(status=503)]
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p") as elected,
        real_peer(supernode, tmp_path / "q") as other,
    ):
        await elected.announce(origin, blob.digest)
        status = await elected.expect(OriginStatus)
        await other.announce(origin, blob.digest)
        await other.expect(SwarmOpened)
        elected.key = elected.challenge.supernode
        await asyncio.to_thread(lambda: fill(elected.store, blob).close())
        await elected.send(*(Stored(0, status.swarm, piece, 0) for piece in range(blob.layout.count)))
        await elected.send(OriginTried(status.swarm, ""))
        await other.completed(blob.digest)
    assert len(origin.blob_requests("GET")) == 1


async def test_no_peer_says_how_a_blob_is_cut(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(random.Random(1).randbytes(MIB))
    layout = PieceLayout(MIB, MIB // 2)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        held = mask_to_bytes(1, 2)
        sources = (Source(origin.authority, REPOSITORY),)
        await peer.send(Announce(str(digest), sources, True, MIB, layout.piece_size_bytes, held))
        assert (await peer.expect(SwarmOpened)).piece_size_bytes == PieceLayout.of(MIB).piece_size_bytes


async def test_pieces_of_a_node_that_worked_alone_count_where_blobs_are_cut_coarser(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.app.Supernode._pace", lambda _: Pace(rate_bytes_s=125_000_000, lease_s=0.01))
    layout, sources = PieceLayout.of(64 * MIB), (Source(origin.authority, REPOSITORY),)
    cuts = []
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        for held, fetching in ((0, 0), (1, 0), (0, 1)):
            digest = Digest.of(bytes([held, fetching]))
            origin.blobs[str(digest)] = bytes(64 * MIB)
            masks = mask_to_bytes(held, layout.count), b"", mask_to_bytes(fetching, layout.count)
            await peer.send(Announce(str(digest), sources, True, 64 * MIB, layout.piece_size_bytes, *masks))
            cuts.append((await peer.expect(SwarmOpened)).piece_size_bytes)
    assert cuts == [MIB, layout.piece_size_bytes, layout.piece_size_bytes]


async def test_a_blob_once_public_stays_so_while_its_origin_is_down_where_the_operator_wants_that(
    tmp_path: Path,
) -> None:
    blob = some_blob(MIB, piece_size_bytes=MIB // 4)
    with fake_origin() as origin:
        origin.add(blob.content)
        async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
            await peer.announce(origin, blob.digest)
            await peer.completed(blob.digest)
    for_long = ("--permission-ttl", "0s", "--stale-if-down", "1h")
    async with (
        running_supernode(tmp_path / "s", origin, *for_long) as supernode,
        real_peer(supernode, tmp_path / "q") as peer,
    ):
        await peer.announce(origin, blob.digest)
        await peer.completed(blob.digest)


async def test_a_holder_that_lost_the_blob_is_awaited_no_more(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(random.Random(1).randbytes(300_000))
    identity = Identity.generate()

    def holders() -> tuple[bytes, ...]:
        state = SqliteState(tmp_path / "s" / "state.sqlite")
        try:
            saved = state.load_swarm(digest)
            assert saved is not None
            return saved.holders
        finally:
            state.close()

    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p", identity) as peer,
    ):
        await peer.announce(origin, digest)
        await peer.completed(digest)
        await peer.expect(Vouched)
    assert holders() == (identity.peer,)
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode, identity) as empty,
    ):
        await empty.announce(origin, digest, wanted=False)
        await empty.expect(SwarmOpened)
    assert holders() == ()
