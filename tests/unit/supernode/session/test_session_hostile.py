"""What one peer or one origin does must not cost the others: on a real supernode, with sessions."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from aiohttp import WSMessage, WSMsgType, web

from benchmarks.cluster.processes import WAIT_S, wait_until
from proto.ids import Digest, peer_name
from proto.wire import codec
from proto.wire.handshake import Ping
from proto.wire.messages import Announce, BlobRefused, Holders, InlineBlob, NodeKnown, Source, SwarmOpened
from proto.wire.tickets import Identity
from supernode.control.admission import Admission
from supernode.control.announcements import ANSWERING_PER_UPSTREAM_MAX
from supernode.session.loop_shares import LoopShares
from supernode.session.session import MESSAGES_PER_TURN_MAX
from tests.support.fake_origin import FakeOrigin, Fault
from tests.unit.supernode.harness import REPOSITORY, BarePeer, real_peer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.control.open_swarm import OpenSwarm, SeedBlob

pytestmark = pytest.mark.asyncio


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

        monkeypatch.setattr(supernode._announcements, "_look", slow_look)
        async with BarePeer.connected(supernode) as first:
            await first.announce(origin, digest)
            await asyncio.wait_for(looking.wait(), WAIT_S)
            await second.announce(origin, digest)
            await second.heard()
        await asyncio.to_thread(wait_until, lambda: len(supernode._control.nodes) == 1, "the end of the first session")
        may_open.set()
        assert (await second.expect(InlineBlob)).content == b"x" * 1000


async def test_a_quarantined_peer_that_comes_back_is_named_to_nobody(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 300_000)
    identity = Identity.generate()
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "50ms") as supernode,
        BarePeer.connected(supernode) as good,
        BarePeer.connected(supernode) as other,
    ):
        supernode._control.participation.quarantine(identity.peer, "served corrupt bytes")
        async with BarePeer.connected(supernode, identity) as bad:
            for peer in (bad, good, other):
                await peer.announce(origin, digest)
                await peer.expect(SwarmOpened)
            while not (named := await other.expect(Holders)).nodes:
                pass
            assert len(named.nodes) == 1
            assert peer_name(identity.peer) not in {known.peer for known in other.of(NodeKnown)}


async def test_an_origins_nonsense_refuses_the_blob_and_ends_no_session(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 1000)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        origin.faults = [Fault(status=307, headers={"Location": "//[bad"})] * 2
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "unavailable"
        await peer.announce(origin, origin.add(b"y" * 1000))
        await peer.expect(SwarmOpened)


async def test_who_announces_many_digests_holds_up_itself_alone(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(random.Random(1).randbytes(300_000))
    sources = (Source(origin.authority, REPOSITORY),)
    made_up = (Announce(str(Digest.of(str(number).encode())), sources, False, 0, 0, b"") for number in range(300))
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as greedy,
        real_peer(supernode, tmp_path / "p") as honest,
    ):
        await greedy.send(*made_up)
        await greedy.expect(BlobRefused)
        # A task that has ended leaves the set in the loop's next round.
        running = [task for task in supernode._announcements._tasks if not task.done()]
        assert len(running) <= ANSWERING_PER_UPSTREAM_MAX
        await honest.announce(origin, digest)
        await honest.completed(digest)
        while len(greedy.of(BlobRefused)) < 300:
            await greedy.expect(BlobRefused)
        await greedy.heard()
        assert supernode._announcements._waiting_bytes == {}


async def test_nodes_of_one_address_do_not_open_all_blobs_that_may_be_open(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.control.announcements.SWARMS_MAX", 4)
    monkeypatch.setattr("supernode.control.announcements.SWARMS_PER_ADDRESS_MIN", 1)
    digests = [origin.add(random.Random(number).randbytes(1000)) for number in range(3)]
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        for digest in digests[:2]:
            await peer.announce(origin, digest)
            await peer.expect(SwarmOpened)
        await peer.announce(origin, digests[2])
        assert "share" in (await peer.expect(BlobRefused)).message


async def test_who_has_left_is_asked_about_no_more(tmp_path: Path, origin: FakeOrigin) -> None:
    digest, origin.always = Digest.of(b"nowhere"), {"HEAD": Fault(delay_s=WAIT_S)}
    async with running_supernode(tmp_path / "s", origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            for number in range(20):
                await peer.announce(origin, digest, repository=f"library/thing{number}")
            await peer.heard()
            await asyncio.to_thread(wait_until, lambda: bool(origin.asked), "the first question")
        await asyncio.to_thread(wait_until, lambda: len(supernode._control.nodes) == 0, "the end of the session")
        origin.released.set()
        await asyncio.to_thread(wait_until, lambda: not supernode._announcements._tasks, "nothing to be answered")
        assert len({asked.target.split("/")[3] for asked in origin.asked}) < 20


async def test_a_blob_that_is_closed_as_soon_as_it_is_open_is_opened_again(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody announced it and withdrew it at once, and another announces it in the same turn of the loop."""
    digest = origin.add(b"x" * 300_000)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        open_swarm, shield, waits = Admission.open, asyncio.shield, itertools.count()
        closed: list[OpenSwarm] = []

        def opened(*arguments: Any, **named: Any) -> OpenSwarm:
            swarm = open_swarm(*arguments, **named)
            asyncio.get_running_loop().call_soon(close, swarm)
            return swarm

        def close(swarm: OpenSwarm) -> None:
            if not closed:
                closed.append(swarm)
                supernode._control.participation.settle(swarm)
                announce = Announce(str(digest), (), True, 0, 0, b"")
                other = supernode._announcements._swarm(digest, 300_000, "", announce)
                other.send(None)
                other.close()

        def counted(waited_for: asyncio.Future[Any]) -> asyncio.Future[Any]:
            assert next(waits) < 100, "it waits for what waits no more"
            return shield(waited_for)

        monkeypatch.setattr(Admission, "open", opened)
        monkeypatch.setattr(asyncio, "shield", counted)
        await peer.announce(origin, digest)
        assert (await peer.expect(SwarmOpened)).size_bytes == 300_000
        assert closed


async def test_a_blob_that_was_opened_for_who_broke_the_protocol_is_closed(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 300_000)
    async with running_supernode(tmp_path / "s", origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            source = Source(origin.authority, REPOSITORY)
            await peer.send(Announce(str(digest), (source,), True, 300_000, 262_144, b"\xff"))
            await peer.ended()
        assert len(supernode._control.swarms) == 0


async def test_frames_that_cost_much_are_read_as_the_loop_has_time(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def spend(shares: LoopShares, party: object, spent_s: float, now_s: float) -> float:
        if spent_s > 0.005:
            waits.append(spent_s)
        return 0.0

    monkeypatch.setattr(LoopShares, "spend", spend)
    # A message of a newer release, with all the empty arrays that a frame may have.
    costly = msgpack.packb([[200, *[[[] for _ in range(16_000)]] * 7]])
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        for _ in range(3):
            await peer.socket.send_bytes(costly)
        await peer.heard()
    assert len(waits) >= 3


async def test_pings_of_the_websocket_itself_are_answered(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    pong, answers = web.WebSocketResponse.pong, []

    async def noted(socket: web.WebSocketResponse, message: bytes) -> None:
        answers.append(message)
        await pong(socket, message)

    monkeypatch.setattr(web.WebSocketResponse, "pong", noted)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.socket.ping(b"there?")
        await peer.socket.pong(b"here")
        await peer.heard()
    assert answers == [b"there?"]


@pytest.mark.parametrize("kind", [WSMsgType.PING, WSMsgType.PONG, WSMsgType.BINARY])
async def test_frames_without_a_message_give_way_to_others_too(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch, kind: WSMsgType
) -> None:
    receive, left = web.WebSocketResponse.receive, 40 * MESSAGES_PER_TURN_MAX

    async def flooded(socket: web.WebSocketResponse) -> WSMessage:
        """What is here already is had without a wait."""
        nonlocal left
        left -= 1
        return WSMessage(kind, codec.encode([]), None) if left >= 0 else await receive(socket)

    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        monkeypatch.setattr(web.WebSocketResponse, "receive", flooded)
        turns = 0
        await peer.send(Ping(1))
        while left >= 0:
            turns += left < 40 * MESSAGES_PER_TURN_MAX
            await asyncio.sleep(0)
        assert turns >= 38
