"""What one peer or one origin does must not cost the others: on a real supernode, with sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.wire.messages import BlobRefused, Failed, FetchReason, Holders, InlineBlob, SwarmOpened
from proto.wire.tickets import Identity
from supernode.scheduler.contract import FailReason, FetchFailed
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proto.ids import Digest
    from supernode.scheduler.contract import Event
    from supernode.seed import SeedBlob

pytestmark = pytest.mark.asyncio


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as origin:
        yield origin


async def test_who_leaves_while_a_blob_is_opened_takes_it_from_nobody_else(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = origin.add(b"x" * 1000)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as second:
        looking, may_open = asyncio.Event(), asyncio.Event()
        look = supernode._seed.look

        async def slow_look(digest: Digest) -> SeedBlob | None:
            looking.set()
            await may_open.wait()
            return await look(digest)

        monkeypatch.setattr(supernode._seed, "look", slow_look)
        async with BarePeer.connected(supernode) as first:
            await first.announce(origin, digest)
            await looking.wait()
            await second.announce(origin, digest)
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        may_open.set()
        assert (await second.expect(InlineBlob)).content == b"x" * 1000


async def test_a_quarantined_peer_that_comes_back_is_named_to_nobody(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 300_000)
    identity = Identity.generate()
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "50ms") as supernode,
        BarePeer.connected(supernode) as other,
    ):
        assert supernode._driver is not None
        supernode._driver.quarantine_peer(identity.peer, "served corrupt bytes")
        async with BarePeer.connected(supernode, identity) as bad:
            await bad.announce(origin, digest)
            await bad.expect(SwarmOpened)
            await other.announce(origin, digest)
            await other.expect(SwarmOpened)
            await asyncio.sleep(0.2)
            assert all(not holders.nodes for holders in other.of(Holders))


async def test_an_origins_nonsense_refuses_the_blob_and_ends_no_session(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 1000)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        origin.faults = [Fault(status=307, headers={"Location": "//[bad"})] * 2
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "unavailable"
        await peer.announce(origin, origin.add(b"y" * 1000))
        await peer.expect(SwarmOpened)


async def test_a_peer_that_calls_every_source_corrupt_is_not_believed_for_long(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as liar,
        BarePeer.connected(supernode),
        BarePeer.connected(supernode),
        BarePeer.connected(supernode),
    ):
        driver = supernode._driver
        assert driver is not None
        reasons: list[FailReason] = []
        all_four = asyncio.Event()

        def post(event: Event) -> None:
            assert isinstance(event, FetchFailed)
            reasons.append(event.reason)
            if len(reasons) == 4:
                all_four.set()

        session, *sources = sorted(driver.nodes, key=lambda session: session.info.peer != liar.identity.peer)
        session.leases.update({number: (1, 0, source.node) for number, source in enumerate(sources, start=1)})
        session.leases[4] = (1, 0, sources[0].node)
        monkeypatch.setattr(driver, "post", post)
        await liar.send(*(Failed(number, FetchReason.CORRUPT) for number in (1, 2, 3, 4)))
        await asyncio.wait_for(all_four.wait(), WAIT_S)
        monkeypatch.undo()
    assert reasons == [FailReason.CORRUPT, FailReason.CORRUPT, FailReason.PROTOCOL, FailReason.CORRUPT]
