"""The link to the supernode: opening, batches, pings, loss, and coming back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.membership.dialer import OpenDialer
from peer.node.session import LIMIT_DOUBLINGS_MAX, LIMIT_PAUSE_S, Session
from proto.wire.handshake import PROTOCOL_VERSION, Challenge, Hello, Refused
from proto.wire.messages import Message, ReaderMoved, Vouched, Withdraw
from proto.wire.tickets import Identity, sign_hello
from tests.support.tls import Authority
from tests.unit.peer.node.scripted_supernode import ScriptedSupernode, scripted_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Owner:
    """Notes what a session tells it."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.events: list[object] = []
        self.changed = asyncio.Event()
        # How many sessions were open or lost when the supernode answered, each time.
        self.answered_after: list[int] = []

    def hello(self, challenge: Challenge) -> Hello:
        proof = sign_hello(self.identity, challenge.nonce, challenge.supernode)
        return Hello(PROTOCOL_VERSION, self.identity.peer, "boot", proof, ":65002", "", 4, 4, 0, 0, "test")

    def answered(self) -> None:
        self.answered_after.append(len(self.events))

    def opened(self, challenge: Challenge) -> None:
        self._note("opened")

    def clock_received(self, unix_s: float) -> None:
        self._note(unix_s)

    def received(self, message: Message) -> None:
        self._note(message)

    def lost(self, reason: str, *, silent: bool) -> None:
        self._note(f"lost: {reason}")

    def _note(self, event: object) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, count: int) -> list[object]:
        async with asyncio.timeout(WAIT_S):
            while len(self.events) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.events


@contextlib.asynccontextmanager
async def running(supernode: ScriptedSupernode, owner: Owner) -> AsyncIterator[Session]:
    session = Session(OpenDialer(supernode.url), owner, jitter=lambda: 0.01)
    task = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_session_opens_with_a_proof_of_identity() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner) as session:
        await owner.until(1)
        assert session.is_open
        assert (await supernode.hears(Hello)).peer == owner.identity.peer
    assert owner.events == ["opened", "lost: stopped"]


@pytest.mark.asyncio
async def test_a_session_over_tls_trusts_this_machine_s_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    owner = Owner()
    # aiohttp was imported before, and would use the certificates of that moment.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
    tls = authority.issue(["127.0.0.1"]).server_context()
    async with scripted_supernode(tls) as supernode, running(supernode, owner) as session:
        await owner.until(1)
        assert session.is_open


@pytest.mark.asyncio
async def test_messages_of_one_turn_leave_in_one_frame_and_in_order() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner) as session:
        await owner.until(1)
        before = supernode.frames
        for piece in range(50):
            session.send(ReaderMoved(1, piece))
        await supernode.hears(ReaderMoved, 50)
        moved = [message.piece for message in supernode.heard if isinstance(message, ReaderMoved)]
        assert moved == list(range(50))
        assert supernode.frames - before == 1


@pytest.mark.asyncio
async def test_what_can_wait_leaves_with_the_next_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.node.session.LINGER_S", 10 * WAIT_S)
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner) as session:
        supernode.ping_interval_s = 10 * WAIT_S
        await owner.until(1)
        before = supernode.frames
        session.send(ReaderMoved(1, 0), soon=False)
        for _ in range(20):
            await asyncio.sleep(0)
        session.send(ReaderMoved(1, 1))
        await supernode.hears(ReaderMoved, 2)
        assert supernode.frames - before == 1


@pytest.mark.asyncio
async def test_what_can_wait_leaves_by_itself_in_the_end() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner) as session:
        supernode.ping_interval_s = 10 * WAIT_S
        await owner.until(1)
        session.send(ReaderMoved(1, 0), soon=False)
        assert (await supernode.hears(ReaderMoved)).piece == 0


@pytest.mark.asyncio
async def test_what_the_supernode_says_arrives_in_order() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner):
        await owner.until(1)
        await supernode.say(Vouched(1), Vouched(2))
        assert await owner.until(3) == ["opened", Vouched(1), Vouched(2)]


@pytest.mark.asyncio
async def test_a_lost_session_is_opened_again() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode, running(supernode, owner):
        await owner.until(1)
        await supernode.hang_up()
        events = await owner.until(3)
        assert events == ["opened", "lost: closed by the supernode", "opened"]
        assert owner.answered_after == [0, 2], "before each session is open"


@pytest.mark.asyncio
async def test_three_missed_pings_end_the_session() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode:
        supernode.answers_pings = False
        supernode.ping_interval_s = 0.1
        async with running(supernode, owner):
            events = await owner.until(2)
            assert str(events[1]).startswith("lost: the supernode is silent for")


@pytest.mark.asyncio
async def test_what_is_sent_without_a_session_is_dropped() -> None:
    owner = Owner()
    async with scripted_supernode() as supernode:
        session = Session(OpenDialer(supernode.url), owner)
        session.send(Withdraw("sha256:" + "0" * 64))
        assert not session.is_open
        assert supernode.heard == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "opening",
    [
        [Refused("version", "too old")],
        [Challenge(PROTOCOL_VERSION + 1, bytes(32), bytes(32), 1)],
        [Vouched(1)],
    ],
)
async def test_a_supernode_that_refuses_leaves_the_node_without_one(opening: list[Message]) -> None:
    owner = Owner()
    async with scripted_supernode() as supernode:
        supernode.opening = opening
        async with running(supernode, owner) as session:
            async with asyncio.timeout(WAIT_S):
                await session.tried.wait()
            assert not session.is_open
    assert owner.events == []
    assert owner.answered_after == [], "it is none that will open a session soon"


class Pauses(OpenDialer):
    """Notes each pause before an attempt, and takes none; after so many it waits for good."""

    def __init__(self, url: str, count: int) -> None:
        super().__init__(url)
        self.taken: list[float] = []
        self.enough = asyncio.Event()
        self._count = count

    async def pause(self, pause_s: float) -> None:
        self.taken.append(pause_s)
        if len(self.taken) >= self._count:
            self.enough.set()
            await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_who_is_refused_for_a_limit_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    async with scripted_supernode() as supernode:
        supernode.opening = [Refused("limit", "20000 sessions are open already")]
        dialer = Pauses(supernode.url, LIMIT_DOUBLINGS_MAX + 2)
        owner = Owner()
        task = asyncio.create_task(Session(dialer, owner, jitter=lambda: 0.5).run())
        async with asyncio.timeout(WAIT_S):
            await dialer.enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    first_s = 2 * (LIMIT_PAUSE_S + 0.5)
    grown = [first_s * 2**time for time in range(LIMIT_DOUBLINGS_MAX)]
    assert dialer.taken == [*grown, grown[-1], grown[-1]]
    assert len(owner.answered_after) == len(dialer.taken), "it is there, and has no room"


@pytest.mark.asyncio
async def test_an_unreachable_supernode_is_tried_and_said_so() -> None:
    session = Session(OpenDialer("http://127.0.0.1:1"), Owner(), jitter=lambda: 10.0)
    task = asyncio.create_task(session.run())
    async with asyncio.timeout(WAIT_S):
        await session.tried.wait()
    assert not session.is_open
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
