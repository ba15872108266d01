"""A supernode that says what a test tells it to, over a real WebSocket; it remembers what peers said."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

from aiohttp import WSMsgType, web

from benchmarks.cluster.processes import WAIT_S
from proto.wire import codec
from proto.wire.handshake import PROTOCOL_VERSION, Challenge, Hello, Ping, Pong, Welcome
from proto.wire.tickets import Identity, check_hello

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from proto.wire.messages import Message

MessageT = TypeVar("MessageT")


class ScriptedSupernode:
    """`opening` replaces Challenge where a test wants something else said first."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.heard: list[Message] = []
        self.frames = 0
        self.sessions = 0
        self.answers_pings = True
        self.ping_interval_s = 2.0
        self.opening: list[Message] | None = None
        self.url = ""
        self._changed = asyncio.Event()
        self._sockets: dict[bytes, web.WebSocketResponse] = {}
        self.refuses = False

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        if self.refuses:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        nonce = bytes(32)
        challenge = Challenge(PROTOCOL_VERSION, nonce, self.identity.peer, 1)
        await socket.send_bytes(codec.encode(self.opening or [challenge]))
        async for frame in socket:
            if frame.type is not WSMsgType.BINARY:
                break
            self.frames += 1
            for message in codec.decode(frame.data):
                await self._hear(socket, nonce, message)
            self._changed.set()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, nonce: bytes, message: Message) -> None:
        if isinstance(message, Hello):
            check_hello(message.peer, nonce, self.identity.peer, message.proof)
            await socket.send_bytes(codec.encode([Welcome(PROTOCOL_VERSION, self.ping_interval_s, "script")]))
            self._sockets[message.peer] = socket
            self.sessions += 1
        elif isinstance(message, Ping) and self.answers_pings:
            await socket.send_bytes(codec.encode([Pong(message.number)]))
        if not isinstance(message, Ping | Pong):
            self.heard.append(message)

    async def say(self, *messages: Message, to: bytes | None = None) -> None:
        """One frame to a peer, or to the only one."""
        await self._of(to).send_bytes(codec.encode(messages))

    async def hang_up(self, to: bytes | None = None) -> None:
        """End a session."""
        await self._of(to).close()

    def _of(self, peer: bytes | None) -> web.WebSocketResponse:
        return self._sockets[peer if peer is not None else next(iter(self._sockets))]

    async def hears(self, kind: type[MessageT], count: int = 1) -> MessageT:
        """Wait until `count` messages of a kind came; the last of them."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = [message for message in self.heard if isinstance(message, kind)]
                if len(found) >= count:
                    return found[count - 1]
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def scripted_supernode(tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedSupernode]:
    """Listening on loopback."""
    supernode = ScriptedSupernode()
    app = web.Application()
    app.router.add_get("/v1/session", supernode.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    supernode.url = f"http{'s' if tls else ''}://{host}:{port}"
    try:
        yield supernode
    finally:
        await runner.cleanup()
