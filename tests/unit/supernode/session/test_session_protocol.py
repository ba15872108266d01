"""The session's own rules: who may open one, what ends it, and that its end hurts nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import msgpack
import pytest

from benchmarks.cluster.processes import wait_until
from proto.ids import short_peer
from proto.wire import codec
from proto.wire.handshake import Challenge, Hello, Ping, Pong, Refused, Welcome
from proto.wire.messages import Announce, BlobRefused, Message, ReaderMoved, Source, Stored, SwarmOpened, Withdraw
from proto.wire.tickets import Identity, sign_hello
from supernode.session.session import Limits
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


async def refused_hello(supernode: Supernode, **changes: Any) -> Refused:
    """What a Hello with these fields changed is answered (Any: the fields have several types)."""
    peer = BarePeer()
    url = f"ws://{supernode.api_address}/v1/session"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        (challenge,) = codec.decode((await socket.receive()).data)
        assert isinstance(challenge, Challenge)
        peer.challenge = challenge
        hello = dataclasses.replace(peer.hello(), **changes)
        await socket.send_bytes(codec.encode([hello]))
        answer = codec.decode((await socket.receive()).data)[-1]
        assert isinstance(answer, Refused), answer
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        return answer


async def test_a_session_opens_with_challenge_hello_welcome(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        assert isinstance(peer.seen[0], Challenge)
        assert peer.seen[0].epoch == 1
        assert isinstance(peer.seen[1], Welcome)
        assert peer.seen[1].ping_interval_s == 2.0


async def test_another_version_is_refused_by_name(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode:
        assert (await refused_hello(supernode, version=99)).code == "version"


async def test_a_forged_identity_is_refused_by_name(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode:
        assert (await refused_hello(supernode, peer=Identity.generate().peer)).code == "identity"
        assert (await refused_hello(supernode, peer=b"short")).code == "identity"
        assert (await refused_hello(supernode, proof=b"")).code == "identity"


async def test_a_proof_for_another_supernode_is_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode:
        peer = BarePeer()
        proof = sign_hello(peer.identity, b"n" * 32, b"k" * 32)
        assert (await refused_hello(supernode, peer=peer.identity.peer, proof=proof)).code == "identity"


@pytest.mark.parametrize(
    "changes",
    [
        {"upload_address": "nowhere"},
        {"upload_address": "host:0"},
        {"zone": "a/b/c/d"},
        {"upload_slots": -1},
        {"upload_rate_bytes_s": -5},
        {"agent": "x" * 1000},
    ],
)
async def test_a_malformed_hello_is_refused_by_name(
    tmp_path: Path, origin: FakeOrigin, changes: dict[str, Any]
) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode:
        assert (await refused_hello(supernode, **changes)).code == "frame"


GARBAGE = {
    "not msgpack": b"\xc1",
    "not an array": msgpack.packb({"a": 1}),
    "truncated": codec.encode([Pong(1)])[:-1],
    "wrong types": msgpack.packb([[18, "x", 1, 2, 3]]),
    "too large": b"\x00" * (codec.FRAME_BYTES_MAX + 1),
    "too many messages": msgpack.packb([[6, 1]] * (codec.MESSAGES_MAX + 1)),
    "a supernode's message": codec.encode([Welcome(1, 2.0, "x")]),
    "a second hello": codec.encode([Hello(1, b"", "", b"", "", "", 0, 0, 0, 0, "")]),
    "no digest": codec.encode([Withdraw("md5:abc")]),
    "negative sizes": codec.encode([Announce("sha256:" + "a" * 64, (), True, -1, 0, b"")]),
}


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_bad_frame_ends_that_session_alone(
    tmp_path: Path, origin: FakeOrigin, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digest = origin.add(b"content")
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as bystander,
        BarePeer.connected(supernode) as peer,
    ):
        await peer.socket.send_bytes(frame)
        assert (await peer.expect(Refused)).code == "frame"
        await peer.ended()
        await bystander.announce(origin, digest)
        await bystander.expect(SwarmOpened)
    assert "code=frame" in caplog.text


async def test_a_text_frame_is_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.socket.send_str("hello")
        assert (await peer.expect(Refused)).code == "frame"


async def test_a_monstrous_frame_is_never_read_whole(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        with contextlib.suppress(ConnectionError):
            await peer.socket.send_bytes(b"\x00" * (6 * 1024 * 1024))
        await peer.ended()
        assert peer.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize(
    "change",
    [{"upstream": "no such/host"}, {"repository": "UPPER"}, {"repository": "../etc"}],
)
async def test_a_malformed_source_is_refused(tmp_path: Path, origin: FakeOrigin, change: dict[str, str]) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        fields = {"upstream": origin.authority, "repository": "name"} | change
        source = Source(fields["upstream"], fields["repository"])
        await peer.send(Announce("sha256:" + "a" * 64, (source,), True, 0, 0, b""))
        assert (await peer.expect(Refused)).code == "frame"


async def test_a_bitfield_that_does_not_fit_is_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 300_000)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        source = Source(origin.authority, "name")
        await peer.send(Announce(str(digest), (source,), True, 300_000, 262_144, b"\xff"))
        assert (await peer.expect(Refused)).code == "frame"


async def test_pieces_that_a_blob_does_not_have_are_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"x" * 300_000)
    async with running_supernode(tmp_path / "s", origin) as supernode:
        for bad in (Stored(0, 1, 2, 0), Stored(0, 1, -1, 0), ReaderMoved(1, 2), ReaderMoved(1, -2)):
            async with BarePeer.connected(supernode) as keeper, BarePeer.connected(supernode) as peer:
                await keeper.announce(origin, digest)
                await peer.announce(origin, digest)
                opened = await peer.expect(SwarmOpened)
                await peer.send(dataclasses.replace(bad, swarm=opened.swarm))
                assert (await peer.expect(Refused)).code == "frame"


async def test_messages_about_unknown_swarms_and_leases_are_passed_over(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"content")
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.send(Stored(7, 99, 0, 0), ReaderMoved(99, 0), Withdraw(str(digest)))
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)


async def test_a_silent_peer_is_ended_after_three_pings(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "100ms", patient=False) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        peer.answer_pings = False
        await peer.ended()


async def test_a_peer_that_answers_stays(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"content")
    # Silence of five seconds would end it.
    limits = Limits(ping_interval_s=0.5, pings_missed_max=10)
    async with (
        running_supernode(tmp_path / "s", origin, limits=limits, patient=False) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        # They are an interval and a half apart, or more: it has said nothing but its answers for longer than that.
        await asyncio.to_thread(wait_until, lambda: peer.pings >= 8)
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)


async def test_a_session_that_is_busy_both_ways_is_not_pinged(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "100ms") as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        silences, before_s = 0, time.monotonic()
        for number in range(60):
            await peer.send(Ping(number))
            await peer.expect(Pong)
            await asyncio.sleep(0.01)
            now_s = time.monotonic()
            # It looks every half interval.
            silences += int((now_s - before_s) / 0.05)
            before_s = now_s
        # Without the rule it is six or more. A machine that stands still makes a silence, which is asked about.
        pings = peer.pings
        assert pings <= silences
        await asyncio.to_thread(wait_until, lambda: peer.pings >= pings + 2)


async def first_message(supernode: Supernode, host: str = "127.0.0.1") -> Message:
    """What a session that is opened from there begins with."""
    url, connector = f"ws://{supernode.api_address}/v1/session", aiohttp.TCPConnector(local_addr=(host, 0))
    async with aiohttp.ClientSession(connector=connector) as http, http.ws_connect(url) as socket:
        return codec.decode((await socket.receive()).data)[0]


async def test_a_session_too_many_is_refused_by_name(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path / "s", origin, "--sessions-max", "1") as supernode,
        BarePeer.connected(supernode),
    ):
        refused = await first_message(supernode)
        assert isinstance(refused, Refused)
        assert refused.code == "limit"


async def test_nodes_of_one_address_leave_half_of_the_sessions_to_others(tmp_path: Path, origin: FakeOrigin) -> None:
    limits = Limits(sessions_max=4, sessions_per_address_min=1)
    async with (
        running_supernode(tmp_path / "s", origin, limits=limits) as supernode,
        BarePeer.connected(supernode),
        BarePeer.connected(supernode),
    ):
        refused = await first_message(supernode)
        assert isinstance(refused, Refused)
        assert (refused.code, "their share of --sessions-max" in refused.message) == ("limit", True)
        assert isinstance(await first_message(supernode, "127.0.0.2"), Challenge)


async def test_a_second_session_of_the_same_peer_replaces_the_first(tmp_path: Path, origin: FakeOrigin) -> None:
    identity = Identity.generate()
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode, identity) as older,
        BarePeer.connected(supernode, identity) as newer,
    ):
        assert (await older.expect(Refused)).code == "identity"
        await newer.announce(origin, origin.add(b"content"))
        await newer.expect(SwarmOpened)


async def test_stopping_says_so(tmp_path: Path, origin: FakeOrigin) -> None:
    peer = BarePeer()
    async with running_supernode(tmp_path / "s", origin) as supernode:
        connection = peer.link(supernode)
        await connection.__aenter__()
    assert (await peer.expect(Refused)).code == "shutdown"
    await connection.__aexit__(None, None, None)


async def test_more_announcements_than_allowed_are_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    limits = Limits(announced_max=2)
    async with (
        running_supernode(tmp_path / "s", origin, limits=limits) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        digests = [origin.add(bytes([n])) for n in range(3)]
        for digest in digests:
            await peer.announce(origin, digest)
        refused = await peer.expect(BlobRefused)
        assert (refused.digest, refused.reason) == (str(digests[2]), "limit")


async def test_a_peer_that_does_not_read_is_ended(tmp_path: Path, origin: FakeOrigin) -> None:
    limits = Limits(outbox_bytes_max=2000, ping_interval_s=0.1)
    async with (
        running_supernode(tmp_path / "s", origin, limits=limits) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        await peer.send(*(Ping(number) for number in range(100)))
        assert (await peer.expect(Refused)).code == "limit"


async def test_health_status_and_metrics_answer(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, origin.add(b"content"))
        await peer.expect(SwarmOpened)
        async with aiohttp.ClientSession(f"http://{supernode.api_address}") as http:
            async with http.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ready\n")
            async with http.get("/v1/status") as answer:
                status = await answer.json()
            async with http.get("/metrics") as answer:
                metrics = await answer.text()
    assert (status["sessions"], status["swarms_open"]) == (1, 1)
    assert 'layercast_origin_requests_total{method="HEAD"} 1.0' in metrics
    assert "layercast_sessions_open 1.0" in metrics


async def test_the_connected_nodes_are_listed(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, origin.add(b"content"))
        await peer.expect(SwarmOpened)
        async with (
            aiohttp.ClientSession(f"http://{supernode.api_address}") as http,
            http.get("/v1/nodes") as answer,
        ):
            (node,) = (await answer.json())["nodes"]
    assert (node["node"], node["peer"]) == (1, short_peer(peer.identity.peer))
    assert (node["address"], node["zone"], node["agent"]) == ("127.0.0.1:7", "eu/a/r1", "test")
    assert (node["blobs_wanted"], node["blobs_announced"]) == (1, 1)
    assert node["trouble"] == ""
