"""A real supernode in this process, and peers that speak its session: bare ones, and ones with store and transport."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self, TypeVar

import aiohttp

from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.http_client import HttpTransport
from peer.transport.http_server import UploadServer
from proto import codec
from proto.ids import Digest, peer_id_from_bytes
from proto.messages import (
    PROTOCOL_VERSION,
    Announce,
    Challenge,
    Grant,
    Hello,
    InlineBlob,
    Message,
    NodeKnown,
    PieceHashes,
    Ping,
    Pong,
    Source,
    Stored,
    SwarmOpened,
    Welcome,
)
from proto.pieces import Bitfield, PieceLayout
from proto.tickets import Identity, check_hashes, sign_hello
from supernode import config
from supernode.app import Supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from supernode.sessions import Limits
    from tests.support.fake_origin import FakeOrigin

M = TypeVar("M")

REPOSITORY = "library/thing"
WAIT_S = 10.0


@contextlib.asynccontextmanager
async def running_supernode(
    data_dir: Path, origin: FakeOrigin, *flags: str, limits: Limits | None = None
) -> AsyncIterator[Supernode]:
    """A supernode on free ports of loopback whose one registry is `origin`."""
    argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    argv += ["--insecure-upstream", origin.authority, "--store-free-floor", "0", *flags]
    supernode = Supernode(config.load(argv, {}))
    supernode.limits = limits or supernode.limits
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
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self.challenge: Challenge
        self.upload_address = ":7"

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, supernode: Supernode, identity: Identity | None = None) -> AsyncIterator[Self]:
        """Through the handshake."""
        peer = cls(identity)
        async with peer.link(supernode):
            yield peer

    @contextlib.asynccontextmanager
    async def link(self, supernode: Supernode, hello: Hello | None = None) -> AsyncIterator[None]:
        """Open a session; without the default Hello the caller looks at what comes."""
        url = f"ws://{supernode.api_address}/v1/session"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=1 << 26) as self.socket:
            reader = asyncio.create_task(self._read())
            try:
                self.challenge = await self.expect(Challenge)
                await self.send(hello or self.hello())
                if hello is None:
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

    async def _received(self, message: Message) -> None:
        if isinstance(message, Ping):
            if self.answer_pings:
                await self.send(Pong(message.number))
            return
        self.seen.append(message)
        self._queue.put_nowait(message)

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.seen if isinstance(message, kind)]

    async def announce(
        self, origin: FakeOrigin, digest: Digest, *, wanted: bool = True, handle: BlobHandle | None = None,
        hashes: bytes = b"", repository: str = REPOSITORY,
    ) -> None:  # fmt: skip
        sources = (Source(origin.authority, repository),)
        if handle is None:
            await self.send(Announce(str(digest), sources, wanted, 0, 0, b"", hashes))
            return
        layout = handle.layout
        held = Bitfield(layout.count, handle.held).to_bytes()
        await self.send(
            Announce(str(digest), sources, wanted, layout.size_bytes, layout.piece_size_bytes, held, hashes)
        )


class RealPeer(BarePeer):
    """Carries out its grants: real transport into a real store, which it serves to others."""

    def __init__(self, folder: Path, identity: Identity | None = None) -> None:
        super().__init__(identity)
        self.key: bytes | None = None
        self.store = DiskStore(folder, size_limit_bytes=1 << 32, free_floor_bytes=0)
        self.upload = UploadServer("127.0.0.1:0", self.store, lambda: self.key)
        self.upload_address = self.upload.address
        self.transport = HttpTransport(self.identity)
        self.nodes: dict[int, PieceSource] = {}
        self.swarms: dict[int, tuple[BlobHandle, bytes]] = {}
        self.sources: list[int] = []
        self.failed: list[str] = []

    def close(self) -> None:
        self.transport.close()
        self.drop_handles()
        self.upload.close()
        self.store.close()

    def drop_handles(self) -> None:
        for handle, _ in self.swarms.values():
            handle.close()
        self.swarms.clear()
        self.nodes.clear()

    async def _received(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        match message:
            case NodeKnown():
                self.nodes[message.node] = PieceSource(peer_id_from_bytes(message.peer), message.address)
            case SwarmOpened() if message.swarm not in self.swarms:
                self.key = self.challenge.supernode
                layout = PieceLayout(message.size_bytes, message.piece_size_bytes)
                opened = self.store.open(Digest.parse(message.digest), layout)
                self.swarms[message.swarm] = opened, message.ticket
            case PieceHashes():
                handle = self.swarms[message.swarm][0]
                key, layout = self.challenge.supernode, handle.layout
                check_hashes(key, handle.digest, layout, message.first, message.hashes, message.signature)
                handle.trust_hashes(message.first, message.hashes)
            case InlineBlob():
                handle = self.swarms[message.swarm][0]
                writer = handle.writer(0)
                writer.write(memoryview(message.content))
                writer.finish()
                await self.send(Stored(message.lease, message.swarm, 0, 1))
            case Grant():
                self._fetch(message, loop)
            case _:
                pass
        await super()._received(message)

    def _fetch(self, grant: Grant, loop: asyncio.AbstractEventLoop) -> None:
        handle, ticket = self.swarms[grant.swarm]
        self.sources.append(grant.node)

        def done(outcome: FetchOutcome) -> None:
            with contextlib.suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(self._report(grant, outcome), loop)

        source = self.nodes[grant.node]
        self.transport.start(
            PieceFetch(grant.lease, handle, grant.piece, source, ticket, grant.expires_ms / 1000), done
        )

    async def _report(self, grant: Grant, outcome: FetchOutcome) -> None:
        with contextlib.suppress(ConnectionError):
            if outcome.reason:
                self.failed.append(outcome.reason)
                return
            await self.send(Stored(grant.lease, grant.swarm, grant.piece, int(outcome.elapsed_s * 1000)))

    async def completed(self, digest: Digest) -> None:
        """Wait until every piece is here, and check the digest."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for handle, _ in self.swarms.values():
                    if handle.digest == digest and handle.held == handle.layout.full_mask:
                        assert await asyncio.to_thread(handle.check_digest)
                        return
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def real_peer(supernode: Supernode, folder: Path, identity: Identity | None = None) -> AsyncIterator[RealPeer]:
    """Connected; everything of it is closed in the end."""
    peer = RealPeer(folder, identity)
    try:
        async with peer.link(supernode):
            yield peer
    finally:
        await asyncio.to_thread(peer.close)
