"""A real supernode in this process, and peers that speak its session: bare ones, and ones with store and transport."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import aiohttp

from benchmarks.cluster.processes import WAIT_S
from peer.membership.dialer import MemberDialer, OpenDialer
from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from proto.config.values import HostPort
from proto.ids import Digest, peer_name, peer_name_from_bytes
from proto.pieces import PieceLayout, mask_to_bytes
from proto.wire import codec
from proto.wire.handshake import PROTOCOL_VERSION, Challenge, Hello, Ping, Pong, Welcome
from proto.wire.messages import (
    Announce,
    BlobChecked,
    Failed,
    Grant,
    InlineBlob,
    Message,
    NodeKnown,
    PieceHashes,
    Source,
    Stored,
    SwarmOpened,
)
from proto.wire.tickets import Identity, check_hashes, sign_hello
from supernode import config
from supernode.app import Supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from supernode.session.session import Limits
    from tests.support.fake_origin import FakeOrigin

M = TypeVar("M")


class Origin(Protocol):
    """What announcements name: HOST:PORT of a registry."""

    @property
    def authority(self) -> str: ...


class Reachable(Protocol):
    """A supernode, in this process or another."""

    @property
    def api_address(self) -> str: ...


@dataclass(frozen=True)
class At:
    """One in another process: with --open, or with a file that holds a join token."""

    api_address: str
    join_file: Path | None = None

    def dialer(self, identity: Identity) -> MemberDialer | OpenDialer:
        """How a peer with this identity gets there."""
        url = f"http://{self.api_address}"
        if self.join_file is None:
            return OpenDialer(url)
        folder = self.join_file.with_name(identity.peer.hex()[:8])
        folder.mkdir(exist_ok=True)
        return MemberDialer(url, folder, identity, self.join_file)


REPOSITORY = "library/thing"


@contextlib.asynccontextmanager
async def running_supernode(
    data_dir: Path, origin: FakeOrigin, *flags: str, limits: Limits | None = None, patient: bool = True
) -> AsyncIterator[Supernode]:
    """A supernode on free ports of loopback whose one registry is `origin`.

    `patient`: it ends no session for silence, which a busy machine has it hear where pings are a moment apart.
    """
    argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    argv += ["--insecure-upstream", origin.authority, "--store-free-floor", "0", "--open", *flags]
    supernode = Supernode(config.load(argv, {}))
    supernode.limits = limits or supernode.limits
    if patient:
        supernode.limits = replace(supernode.limits, pings_missed_max=int(WAIT_S / supernode.limits.ping_interval_s))
    try:
        supernode.open()
        await supernode.start()
        yield supernode
    finally:
        assert await supernode.stop()


class BarePeer:
    """A session and nothing else; every message that came is kept in `seen`."""

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.seen: list[Message] = []
        self.answer_pings = True
        self.pings = 0
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue()
        # Our own pings, by their number.
        self._questions = itertools.count(1 << 20)
        self._answers: dict[int, asyncio.Future[None]] = {}
        self.challenge: Challenge
        self.upload_address = ":7"

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, supernode: Reachable, identity: Identity | None = None) -> AsyncIterator[Self]:
        """Through the handshake."""
        peer = cls(identity)
        async with peer.link(supernode):
            yield peer

    @contextlib.asynccontextmanager
    async def link(
        self, supernode: Reachable, hello: Hello | None = None, *, greet: bool = True
    ) -> AsyncIterator[None]:
        """Open a session; without the default Hello the caller looks at what comes. `greet`: say Hello at all."""
        at = supernode if isinstance(supernode, At) else At(supernode.api_address)
        async with aiohttp.ClientSession() as http:
            dial = await at.dialer(self.identity).dial(http)
            url, tls, name = f"{dial.url}/v1/session", dial.tls, dial.server_name
            self.socket = await http.ws_connect(url, max_msg_size=1 << 26, ssl=tls, server_hostname=name)
            reader = asyncio.create_task(self._read())
            try:
                self.challenge = await self.expect(Challenge)
                if greet:
                    await self.send(hello or self.hello())
                if greet and hello is None:
                    await self.expect(Welcome)
                yield
            finally:
                await self.socket.close()
                await reader

    def hello(self) -> Hello:
        proof = sign_hello(self.identity, self.challenge.nonce, self.challenge.supernode)
        return Hello(
            PROTOCOL_VERSION, self.identity.peer, "boot", proof, self.upload_address, "eu/a/r1", 4, 4, 0, 0, "test"
        )

    async def send(self, *batch: Message) -> None:
        await self.socket.send_bytes(codec.encode(batch))

    async def expect(self, kind: type[M]) -> M:
        """The next message of this kind; others before it are passed over (and stay in `seen`)."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self._queue.get()
                assert message is not None, f"session ended while waiting for {kind.__name__}: {self.seen[-3:]}"
                if isinstance(message, kind):
                    return message

    async def heard(self) -> None:
        """Wait until the supernode has taken all that was sent before; what it had said until then is in `seen`.

        Raises ConnectionError where the session ends instead.
        """
        number = next(self._questions)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.send(Ping(number))
        async with asyncio.timeout(WAIT_S):
            await answered

    async def ended(self) -> None:
        """Wait until the supernode closed the session."""
        async with asyncio.timeout(WAIT_S):
            while await self._queue.get() is not None:
                pass

    async def _read(self) -> None:
        async for frame in self.socket:
            if frame.type is aiohttp.WSMsgType.BINARY:
                for message in codec.decode(frame.data):
                    await self._received(message)
        self._queue.put_nowait(None)
        for answer in self._answers.values():
            answer.set_exception(ConnectionError("the session has ended"))
        self._answers.clear()

    async def _received(self, message: Message) -> None:
        if isinstance(message, Ping):
            self.pings += 1
            if self.answer_pings:
                await self.send(Pong(message.number))
            return
        if isinstance(message, Pong) and message.number in self._answers:
            self._answers.pop(message.number).set_result(None)
            return
        self.seen.append(message)
        self._queue.put_nowait(message)

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.seen if isinstance(message, kind)]

    async def announce(
        self, origin: Origin, digest: Digest, *, wanted: bool = True, handle: BlobHandle | None = None,
        repository: str = REPOSITORY,
    ) -> None:  # fmt: skip
        sources = (Source(origin.authority, repository),)
        if handle is None:
            await self.send(Announce(str(digest), sources, wanted, 0, 0, b""))
            return
        layout = handle.layout
        held = mask_to_bytes(handle.held, layout.count)
        await self.send(Announce(str(digest), sources, wanted, layout.size_bytes, layout.piece_size_bytes, held))


class RealPeer(BarePeer):
    """Carries out its grants: real transport into a real store, which it serves to others."""

    def __init__(self, folder: Path, identity: Identity | None = None) -> None:
        super().__init__(identity)
        self.key: bytes | None = None
        self.store = DiskStore(folder, size_limit_bytes=1 << 32, free_floor_bytes=0)
        self.upload = UploadServer(
            HostPort("127.0.0.1", 0), self.store, lambda: self.key, peer_name(self.identity.peer)
        )
        self.upload_address = self.upload.address
        self.transport = HttpTransport(self.identity, connect_timeout_s=WAIT_S, slot_wait_s=WAIT_S)
        self.nodes: dict[int, PieceSource] = {}
        self.swarms: dict[int, tuple[BlobHandle, bytes]] = {}
        self.sources: list[int] = []
        # The pieces whose hashes came with pieces: with theirs, or with a neighbour.
        self.told: set[int] = set()
        self.failed: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await asyncio.to_thread(self.transport.close)
        await asyncio.sleep(0)
        await asyncio.gather(*self.tasks)
        self.drop_handles()
        await asyncio.to_thread(self.upload.close)
        await asyncio.to_thread(self.store.close)

    def drop_handles(self) -> None:
        for handle, _ in self.swarms.values():
            handle.close()
        self.swarms.clear()
        self.nodes.clear()

    async def _received(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        match message:
            case NodeKnown():
                self.nodes[message.node] = PieceSource(peer_name_from_bytes(message.peer), message.address)
            case SwarmOpened() if message.swarm not in self.swarms:
                self.key = self.challenge.supernode
                layout = PieceLayout(message.size_bytes, message.piece_size_bytes)
                opened = self.store.open(Digest.parse(message.digest), layout)
                self.swarms[message.swarm] = opened, message.ticket
            case PieceHashes():
                handle = self.swarms[message.swarm][0]
                key, layout = self.challenge.supernode, handle.layout
                check_hashes(key, handle.digest, layout, message.first, message.hashes, message.signature)
                handle.learn_hashes(SignedHashes(message.first, message.hashes, message.signature))
            case InlineBlob():
                handle = self.swarms[message.swarm][0]
                writer = handle.writer(0, from_origin=handle.hash_of(0) is None)
                writer.write(memoryview(message.content))
                writer.finish()
                await self.send(Stored(message.lease, message.swarm, 0, 1))
                await self._check(message.swarm)
            case Grant():
                self._fetch(message, loop)
            case _:
                pass
        await super()._received(message)

    def _fetch(self, grant: Grant, loop: asyncio.AbstractEventLoop) -> None:
        handle, ticket = self.swarms[grant.swarm]
        self.sources.append(grant.node)

        def report(outcome: FetchOutcome) -> None:
            task = asyncio.create_task(self._report(grant, outcome))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        def done(outcome: FetchOutcome) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(report, outcome)

        source = self.nodes[grant.node]
        expires_s = grant.expires_ms / 1000
        learn = functools.partial(self._learn, handle)
        self.transport.start(PieceFetch(grant.lease, handle, grant.piece, source, ticket, expires_s, learn=learn), done)

    def _learn(self, handle: BlobHandle, signed: SignedHashes) -> None:
        key = self.challenge.supernode
        check_hashes(key, handle.digest, handle.layout, signed.first, signed.hashes, signed.signature)
        handle.learn_hashes(signed)
        self.told.update(range(signed.first, signed.first + signed.count))

    async def _report(self, grant: Grant, outcome: FetchOutcome) -> None:
        with contextlib.suppress(ConnectionError):
            if outcome.reason:
                self.failed.append(outcome.reason)
                # Else its lease would last to its end, and the next one longer.
                await self.send(Failed(grant.lease, outcome.reason))
                return
            await self.send(Stored(grant.lease, grant.swarm, grant.piece, int(outcome.elapsed_s * 1000)))
            await self._check(grant.swarm)

    async def _check(self, swarm: int) -> None:
        handle = self.swarms[swarm][0]
        if handle.held == handle.layout.full_mask:
            await self.send(BlobChecked(swarm, await asyncio.to_thread(handle.check_digest)))

    async def completed(self, digest: Digest) -> None:
        """Wait until every piece is here and the digest has passed."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for handle, _ in self.swarms.values():
                    if handle.digest == digest and handle.complete:
                        return
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def real_peer(supernode: Reachable, folder: Path, identity: Identity | None = None) -> AsyncIterator[RealPeer]:
    """Connected; everything of it is closed in the end."""
    peer = RealPeer(folder, identity)
    try:
        async with peer.link(supernode):
            yield peer
    finally:
        await peer.close()
