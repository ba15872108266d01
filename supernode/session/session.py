"""One session with one peer: handshake, frames in and out, pings, and an end with a named reason.

It checks who the peer is and that it keeps the protocol and the limits; what messages mean is the control's business.
Each bad frame ends this session and touches nothing else. No payload passes here but a tiny blob inside a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web

from proto.errors import FrameInvalid
from proto.ids import short_peer
from proto.runtime.tasks import until_one_fails
from proto.wire import codec
from proto.wire.handshake import PROTOCOL_VERSION, Challenge, Clock, Hello, Ping, Pong, Refused, Welcome
from proto.wire.tickets import NONCE_BYTES
from supernode.control.notifier import REFRESH_INTERVALS
from supernode.control.peer_session import TEXT_MAX, IdentityTaken
from supernode.session.hello import SessionEnd, read_hello
from supernode.session.loop_shares import LoopShares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proto.config.values import Network
    from proto.ids import PeerId
    from proto.wire.messages import Message
    from supernode.control.message_handler import MessageHandler
    from supernode.control.peer_session import PeerInfo, PeerSession
    from supernode.metrics import Metrics

logger = logging.getLogger(__name__)

# Nothing was said or heard for so long: a ping. A piece on a slow link takes about an interval, and needs none.
QUIET_INTERVALS: Final = 1.5
# A peer on the other side of the world answers the challenge within a second, and gives up after so long itself.
HELLO_TIMEOUT_S: Final = 5.0
# Hello takes some hundred bytes. Nobody is known before it, and nothing larger is decoded.
HELLO_BYTES_MAX: Final = 4096
CLOSE_TIMEOUT_S: Final = 1.0
# aiohttp refuses larger frames by itself (close code 1009); a little above ours, so that most are refused by name.
WEBSOCKET_BYTES_MAX: Final = codec.FRAME_BYTES_MAX + 64 * 1024
# A 10 Gbit/s node that stores 256 KiB pieces sends 5,000 messages in a second, which is half an interval; ten times
# that is an attack.
MESSAGES_PER_LOOK_MAX: Final = 50_000
# Longer ones can take more than 5 ms to decode.
FRAME_AT_ONCE_BYTES: Final = 8 * 1024
# What a frame costs beside what is in it: about so much of the processor's time.
FRAME_S: Final = 20e-6
# The longest wait for a share of the loop's time: a peer that hears nothing for three takes us for dead.
WAIT_INTERVALS: Final = 2
# Giving way to others after each frame would be a turn of the loop for each.
MESSAGES_PER_TURN_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What sessions may take of us."""

    sessions_max: int = 20_000
    # From half of them on, nodes of one address may have their share of all, and so many in any case.
    sessions_per_address_min: int = 500
    # Blobs that one peer may hold or want at a time, as far as we keep track of it.
    announced_max: int = 20_000
    # A peer that does not read is ended beyond this; the hashes of a very large blob are 2 MiB.
    outbox_bytes_max: int = 16 * 1024 * 1024
    ping_interval_s: float = 2.0
    # Silence of so many intervals ends a session.
    pings_missed_max: int = 3
    # Networks in which peers may serve pieces though they connect from elsewhere.
    advertise_allow: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What every session is opened with. `supernode_key` is the public one, `transport` how pieces travel."""

    supernode_key: bytes
    epoch: int
    agent: str
    transport: str
    limits: Limits
    shares: LoopShares = field(default_factory=lambda: LoopShares(time.monotonic()))


class WebSocketSession:
    """One WebSocket, from the upgrade to its end. Implements supernode.control.peer_session.Channel.

    It tells the handler of what goes on, always on the event loop and never re-entrantly.
    """

    def __init__(self, handler: MessageHandler, metrics: Metrics, terms: Terms) -> None:
        self._handler = handler
        self._metrics = metrics
        self._terms = terms
        self._limits = terms.limits
        self._socket = web.WebSocketResponse(
            max_msg_size=WEBSOCKET_BYTES_MAX, compress=False, timeout=CLOSE_TIMEOUT_S, autoping=False
        )
        self._outbox = codec.Outbox()
        self._wake = asyncio.Event()
        self._end: asyncio.Future[SessionEnd] = asyncio.get_running_loop().create_future()
        self._heard_s = self._said_s = self._refreshed_s = time.monotonic()
        self._messages = 0
        self._pings = 0
        self._name = "?"
        # Of the loop's time, by what was read since it was last accounted for.
        self._spent_s = 0.0
        # Where this peer will look for our upload port.
        self.local_host = ""

    def send(self, message: Message, *, soon: bool = True) -> None:
        """Queue a message; everything queued in one turn of the loop leaves as one frame. Not `soon`: with the next."""
        if self._end.done():
            return
        self._outbox.add(message)
        if self._outbox.bytes_waiting > self._limits.outbox_bytes_max:
            self.end("limit", f"{self._outbox.bytes_waiting} bytes wait for you: read faster")
        if soon:
            self._wake.set()

    def end(self, code: str, message: str) -> None:
        """End the session, with `Refused(code, message)` unless code is empty. Idempotent."""
        if not self._end.done():
            self._end.set_result(SessionEnd(code, message))

    async def run(
        self, request: web.Request, refusal: SessionEnd | None = None, member: PeerId | None = None
    ) -> web.WebSocketResponse:
        """Serve the session until it ends. `refusal`: say this in place of a challenge. `member`: by certificate."""
        await self._socket.prepare(request)
        if request.transport is not None:
            self.local_host = request.transport.get_extra_info("sockname")[0]
        session: PeerSession | None = None
        end = SessionEnd("", "closed by the peer")
        try:
            if refusal is not None:
                raise refusal
            info, rest = await self._handshake(request.remote or "", member)
            self._name = short_peer(info.peer)
            session = self._admit(info)
            await self._welcome()
            await until_one_fails(self._read(session, rest), self._write(session), self._ping(), self._ended())
        except SessionEnd as raised:
            end = raised
        except asyncio.CancelledError:
            end = SessionEnd("shutdown", "the supernode is stopping")
            raise
        finally:
            if session is not None:
                self._handler.lost(session, end.code or str(end), silent=end.silent)
            await self._close(end)
        return self._socket

    # --- opening -----------------------------------------------------------------------------------------------

    async def _handshake(self, remote: str, member: PeerId | None) -> tuple[PeerInfo, list[Message]]:
        nonce = os.urandom(NONCE_BYTES)
        terms = self._terms
        challenge = Challenge(PROTOCOL_VERSION, nonce, terms.supernode_key, terms.epoch, terms.transport)
        await self._socket.send_bytes(codec.encode([challenge]))
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                batch = await self._frame(HELLO_BYTES_MAX)
        except TimeoutError:
            raise SessionEnd("identity", f"no Hello within {HELLO_TIMEOUT_S:.0f} s") from None
        if not batch or not isinstance(batch[0], Hello):
            raise SessionEnd("frame", "a session begins with Hello")
        allow = self._limits.advertise_allow
        return read_hello(batch[0], remote, nonce, terms.supernode_key, allow, member), batch[1:]

    def _admit(self, info: PeerInfo) -> PeerSession:
        try:
            return self._handler.admit(self, info)
        except IdentityTaken as error:
            raise SessionEnd("identity", str(error)) from None

    async def _welcome(self) -> None:
        welcome = Welcome(PROTOCOL_VERSION, self._limits.ping_interval_s, self._terms.agent)
        with self._connected():
            await self._socket.send_bytes(codec.encode([welcome, Clock(int(time.time() * 1000))]))

    # --- open --------------------------------------------------------------------------------------------------

    async def _read(self, session: PeerSession, first: list[Message]) -> None:
        batch = first
        turn = 0
        while True:
            began_s = time.thread_time()
            for message in batch:
                self._take(session, message)
                turn += 1
                if turn >= MESSAGES_PER_TURN_MAX:
                    # What came together must not keep the loop from everybody else.
                    turn = 0
                    self._spent_s += time.thread_time() - began_s
                    await asyncio.sleep(0)
                    began_s = time.thread_time()
            self._spent_s += time.thread_time() - began_s
            await self._wait_for_share(session.info.peer)
            turn += 1
            if turn >= MESSAGES_PER_TURN_MAX:
                # Nor frames without a message: of those that are here the next is had without a wait.
                turn = 0
                await asyncio.sleep(0)
            batch = await self._frame()
            self._count(batch)

    async def _wait_for_share(self, peer: PeerId) -> None:
        """Whoever has more read than its share of the loop's time has less of it read."""
        spent_s, self._spent_s = self._spent_s, 0.0
        wait_s = self._terms.shares.spend(peer, spent_s, time.monotonic())
        if wait_s > 0.0:
            await asyncio.sleep(min(wait_s, WAIT_INTERVALS * self._limits.ping_interval_s))
            # What it said meanwhile is still to be read.
            self._heard_s = time.monotonic()

    def _count(self, batch: list[Message]) -> None:
        self._heard_s = time.monotonic()
        self._messages += len(batch)
        if self._messages > MESSAGES_PER_LOOK_MAX:
            raise SessionEnd("limit", f"more than {MESSAGES_PER_LOOK_MAX} messages in half a ping interval")

    def _take(self, session: PeerSession, message: Message) -> None:
        if isinstance(message, Ping):
            self.send(Pong(message.number))
        elif not isinstance(message, Pong):
            try:
                self._handler.received(session, message)
            except FrameInvalid as error:
                raise SessionEnd("frame", str(error)) from None

    async def _frame(self, bytes_max: int = codec.FRAME_BYTES_MAX) -> list[Message]:
        """The messages of the next frame. Raises SessionEnd."""
        with self._connected():
            received = await self._socket.receive()
            if received.type is WSMsgType.PING:
                await self._socket.pong(received.data)
        self._spent_s += FRAME_S
        if received.type in (WSMsgType.PING, WSMsgType.PONG):
            return []
        if received.type is WSMsgType.BINARY:
            if len(received.data) > bytes_max:
                raise SessionEnd("frame", f"frame of {len(received.data)} bytes: at most {bytes_max} here")
            return await self._decoded(received.data)
        if received.type is WSMsgType.TEXT:
            raise SessionEnd("frame", "text frame: binary msgpack expected")
        if received.type is WSMsgType.ERROR:
            logger.warning("session_frame_refused peer=%s error=%s", self._name, received.data)
        raise SessionEnd("", "closed by the peer")

    async def _decoded(self, frame: bytes) -> list[Message]:
        """A long one in a thread, which gives way to the loop every few milliseconds. Raises SessionEnd."""
        decoding = _decode(frame) if len(frame) <= FRAME_AT_ONCE_BYTES else await asyncio.to_thread(_decode, frame)
        messages, error, spent_s = decoding
        self._spent_s += spent_s
        if error:
            raise SessionEnd("frame", error)
        return messages

    async def _write(self, session: PeerSession) -> None:
        while True:
            await self._wake.wait()
            self._said_s = time.monotonic()
            if self._said_s - self._refreshed_s >= REFRESH_INTERVALS * self._limits.ping_interval_s:
                # In a frame that leaves anyway it costs no packet of its own, and no acknowledgement of one.
                self._refreshed_s = self._said_s
                self._handler.refresh(session)
            self._wake.clear()
            with self._connected():
                await self._send(self._outbox.take() or [self._question()])

    async def _send(self, batch: list[Message]) -> None:
        for frame in codec.frames(batch):
            await self._socket.send_bytes(frame)

    def _question(self) -> Ping:
        self._pings += 1
        return Ping(self._pings)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """The WebSocket's failures are the session's end."""
        try:
            yield
        except (ConnectionError, RuntimeError) as error:
            raise SessionEnd("", f"connection lost: {error}") from None

    async def _ping(self) -> None:
        """Where both sides have something to say, what they say is the ping."""
        interval_s = self._limits.ping_interval_s
        while True:
            due_s = time.monotonic() + interval_s / 2
            await asyncio.sleep(interval_s / 2)
            now_s = time.monotonic()
            if now_s - due_s > interval_s / 2:
                # We stood still: what peers said meanwhile is still to be read.
                self._heard_s = min(now_s, self._heard_s + now_s - due_s)
            silent_s = now_s - self._heard_s
            if silent_s > self._limits.pings_missed_max * interval_s:
                raise SessionEnd("", f"silent for {silent_s:.1f} s", silent=True)
            self._messages = 0
            if silent_s >= QUIET_INTERVALS * interval_s:
                self.send(self._question())
            elif now_s - self._said_s >= QUIET_INTERVALS * interval_s:
                self._wake.set()

    async def _ended(self) -> None:
        raise await asyncio.shield(self._end)

    # --- the end -----------------------------------------------------------------------------------------------

    async def _close(self, end: SessionEnd) -> None:
        level = logging.INFO if end.code in ("", "shutdown") else logging.WARNING
        if end.code:
            self._metrics.refused.labels(end.code).inc()
        logger.log(level, "session_ended peer=%s code=%s reason=%s", self._name, end.code or "closed", end)
        if not self._end.done():
            self._end.set_result(end)
        with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if end.code:
                    refused = Refused(end.code, str(end)[:TEXT_MAX])
                    await self._send([*self._outbox.take(), refused][-64:])
                await self._socket.close(message=end.code.encode())


def _decode(frame: bytes) -> tuple[list[Message], str, float]:
    """The messages, what is wrong with the frame, and the seconds of the processor that this took."""
    began_s = time.thread_time()
    try:
        return codec.decode(frame), "", time.thread_time() - began_s
    except FrameInvalid as error:
        return [], str(error), time.thread_time() - began_s
