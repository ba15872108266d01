"""The session with the supernode: connect, prove who we are, carry messages both ways, notice its end, connect again.

Messages sent in one turn of the loop leave in one frame. What they mean is the node's business; nothing is kept
over the end of a session.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, Protocol, cast

import aiohttp

from peer.membership.refusals import NotAdmitted
from proto.errors import FrameInvalid
from proto.runtime.tasks import until_one_fails
from proto.wire import codec
from proto.wire.handshake import PROTOCOL_VERSION, CertificateDue, Challenge, Clock, Hello, Ping, Pong, Refused, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.membership.dialer import Dial
    from proto.wire.messages import Message

logger = logging.getLogger(__name__)

RECONNECT_JITTER_S: Final = 2.0
# After a refusal that trying again will not change soon.
REFUSED_PAUSE_S: Final = 30.0
# After a refusal for a limit, which takes its time: so long at first, twice as long each time, and jitter likewise.
LIMIT_PAUSE_S: Final = 1.0
LIMIT_DOUBLINGS_MAX: Final = 4
PINGS_MISSED_MAX: Final = 3
# Woken later than that, this process stood still or the machine did.
STALL_S: Final = 1.0
# Of silence, before we ask: the supernode asks first, and the answer still comes before the third is over.
PING_AFTER_INTERVALS: Final = 2.0
OPEN_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 0.5
# Twenty thousand announcements of large blobs after a reconnect stay below it; beyond, the supernode does not read.
OUTBOX_BYTES_MAX: Final = 64 * 1024 * 1024
# Giving way to others after each frame would be a turn of the loop for each.
MESSAGES_PER_TURN_MAX: Final = 64
# What nobody waits for stays so long for a frame to leave with: a node that pulls sends some in that time.
LINGER_S: Final = 0.1


class SessionLost(Exception):
    """The session is over; `pause_s` before the next attempt. `silent`: nothing was heard, and nothing ended it.

    `crowded`: it was refused for a limit, and would be again at once.
    """

    def __init__(self, reason: str, pause_s: float = 0.0, *, silent: bool = False, crowded: bool = False) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.silent = silent
        self.crowded = crowded


class Send(Protocol):
    """How the rest of the node speaks to the supernode; see Session.send."""

    def __call__(self, message: Message, *, soon: bool = True) -> None: ...


class SessionOwner(Protocol):
    """Whom a session serves, on the event loop but for hello()."""

    def hello(self, challenge: Challenge) -> Hello:
        """Answer the challenge; called in a thread. Raises TicketInvalid where this supernode is not to be trusted."""

    def answered(self) -> None:
        """The supernode is there, though there is no session: one is about to be opened, or was refused for a limit."""

    def opened(self, challenge: Challenge) -> None:
        """Welcome came: messages may flow."""

    def clock_received(self, unix_s: float) -> None:
        """The supernode says what its clock shows now."""
        ...

    def received(self, message: Message) -> None:
        """A message other than the session's own."""

    def lost(self, reason: str, *, silent: bool) -> None:
        """Called exactly once after opened(). `silent`: the supernode said nothing more; else the connection ended."""


class Dialer(Protocol):
    """How the supernode is reached (peer.membership.dialer)."""

    url: str

    async def dial(self, client: aiohttp.ClientSession) -> Dial:
        """Raises NotAdmitted, aiohttp.ClientError, OSError, TimeoutError."""
        ...

    async def explain(self, client: aiohttp.ClientSession, error: BaseException) -> NotAdmitted | None:
        """What a session that was not opened means, where the operator must act."""
        ...

    async def pause(self, pause_s: float) -> None:
        """Before the next attempt, or until something changed."""
        ...

    def renew_within(self, within_s: float) -> None:
        """The supernode asks for the certificate to be renewed."""
        ...


class Session:
    """Keeps a session open with the supernode that `dialer` dials, while run() runs."""

    def __init__(self, dialer: Dialer, owner: SessionOwner, *, jitter: Callable[[], float] | None = None) -> None:
        self._dialer = dialer
        self._owner = owner
        self._jitter = jitter or (lambda: random.uniform(0.0, RECONNECT_JITTER_S))
        self._outbox = codec.Outbox()
        self._wake = asyncio.Event()
        self._lingering: asyncio.TimerHandle | None = None
        # Whether messages can be sent now.
        self.is_open = self._was_open = False
        self._heard_s = 0.0
        # Set once the first attempt ended, either way: a node is ready then.
        self.tried = asyncio.Event()
        # Why there is no session; empty while there is one.
        self.problem = ""

    def send(self, message: Message, *, soon: bool = True) -> None:
        """Queue a message for the open session; without one it is dropped. Not `soon`: within LINGER_S."""
        if self.is_open:
            self._outbox.add(message)
            if soon:
                self._wake.set()
            elif self._lingering is None:
                self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._end_lingering)

    def _end_lingering(self) -> None:
        self._lingering = None
        self._wake.set()

    async def run(self) -> None:
        """Connect, and again after each end, until cancelled."""
        failures = crowded = 0
        logged = ""
        async with aiohttp.ClientSession(trust_env=False) as client:
            while True:
                try:
                    await self._once(client)
                except SessionLost as lost:
                    if lost.crowded:
                        self._owner.answered()
                    # One line an outage, then one a minute or so: nobody reads a thousand.
                    news = self._was_open or str(lost) != logged or failures % 30 == 0
                    logger.log(
                        logging.WARNING if news else logging.DEBUG,
                        "supernode_lost url=%s reason=%s",
                        self._dialer.url,
                        lost,
                    )
                    pause_s = lost.pause_s
                    self.problem = logged = str(lost)
                    crowded = 0 if not lost.crowded else 1 if self._was_open else crowded + 1
                failures = 0 if self._was_open else failures + 1
                self.tried.set()
                grown = 2 ** min(crowded, LIMIT_DOUBLINGS_MAX)
                await self._dialer.pause(pause_s * grown + self._jitter() * grown)

    async def _once(self, client: aiohttp.ClientSession) -> None:
        """One session from connect to end. Raises SessionLost."""
        self._was_open = False
        try:
            dial = await self._dialer.dial(client)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                socket = await client.ws_connect(
                    f"{dial.url}/v1/session",
                    ssl=dial.tls,
                    server_hostname=dial.server_name,
                    max_msg_size=codec.FRAME_BYTES_MAX + 64 * 1024,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except NotAdmitted as error:
            raise _not_admitted(error) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise await self._not_opened(client, error) from None
        try:
            await self._serve(socket)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SessionLost(f"connection lost: {_text(error)}") from None
        finally:
            await socket.close()

    async def _not_opened(self, client: aiohttp.ClientSession, error: Exception) -> SessionLost:
        explained = await self._dialer.explain(client, error)
        return _not_admitted(explained) if explained is not None else SessionLost(f"cannot connect: {_text(error)}")

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            challenge, welcome, rest = await self._open_session(socket)
        self._outbox.take()
        self.is_open = self._was_open = True
        self._heard_s = asyncio.get_running_loop().time()
        self.problem = ""
        logger.info("supernode_connected url=%s epoch=%d agent=%s", self._dialer.url, challenge.epoch, welcome.agent)
        interval_s = max(0.05, welcome.ping_interval_s)
        reason, silent = "stopped", False
        try:
            self._owner.opened(challenge)
            self.tried.set()
            await until_one_fails(
                self._read(socket, rest),
                self._write(socket),
                self._ping(interval_s),
                self._watch(PINGS_MISSED_MAX * interval_s),
            )
        except Exception as error:
            reason = _text(error)
            silent = isinstance(error, SessionLost) and error.silent
            raise
        finally:
            self.is_open = False
            self._owner.lost(reason, silent=silent)

    async def _open_session(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Challenge, Welcome, list[Message]]:
        batch = await _frame(socket)
        challenge = batch[0] if batch else None
        if isinstance(challenge, Refused):
            raise _refused(challenge)
        if not isinstance(challenge, Challenge):
            raise SessionLost("the supernode did not begin with a challenge", REFUSED_PAUSE_S)
        if challenge.version != PROTOCOL_VERSION:
            raise SessionLost(
                f"the supernode speaks protocol version {challenge.version}, this peer {PROTOCOL_VERSION}: "
                "install the same release on both",
                REFUSED_PAUSE_S,
            )
        self._owner.answered()
        hello = await asyncio.to_thread(self._owner.hello, challenge)
        await socket.send_bytes(codec.encode([hello]))
        batch = await _frame(socket)
        welcome = batch[0] if batch else None
        if isinstance(welcome, Refused):
            raise _refused(welcome)
        if not isinstance(welcome, Welcome):
            raise SessionLost("the supernode did not answer Hello with Welcome", REFUSED_PAUSE_S)
        return challenge, welcome, batch[1:]

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, first: list[Message]) -> None:
        batch = first
        handled = 0
        while True:
            self._take(batch)
            handled += 1 + len(batch)
            if handled > MESSAGES_PER_TURN_MAX:
                # Frames that came together must not keep the loop from everybody else.
                handled = 0
                await asyncio.sleep(0)
            batch = await _frame(socket)

    def _take(self, batch: list[Message]) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        for message in batch:
            if isinstance(message, Ping):
                self.send(Pong(message.number))
            elif isinstance(message, Refused):
                raise _refused(message)
            elif isinstance(message, Clock):
                self._owner.clock_received(message.unix_ms / 1000)
            elif isinstance(message, CertificateDue):
                self._dialer.renew_within(message.within_s)
            elif not isinstance(message, Pong):
                self._owner.received(message)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for frame in codec.frames(self._outbox.take()):
                await socket.send_bytes(frame)

    async def _ping(self, interval_s: float) -> None:
        number = 0
        while True:
            await asyncio.sleep(interval_s / 4)
            now_s = asyncio.get_running_loop().time()
            if now_s - self._heard_s > PING_AFTER_INTERVALS * interval_s:
                # The supernode pings too if it sends nothing else: as long as something comes, nobody need ask.
                number += 1
                self.send(Ping(number))
            if self._outbox.bytes_waiting > OUTBOX_BYTES_MAX:
                raise SessionLost(f"the supernode does not read: {self._outbox.bytes_waiting} bytes wait for it")

    async def _watch(self, silence_max_s: float) -> None:
        """Ends when nothing was heard for so long."""
        while True:
            left_s = self._heard_s + silence_max_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise SessionLost(f"the supernode is silent for {silence_max_s:.1f} s", silent=True)
            due_s = asyncio.get_running_loop().time() + left_s
            await asyncio.sleep(left_s)
            late_s = asyncio.get_running_loop().time() - due_s
            if late_s > STALL_S:
                # We stood still: what the supernode said meanwhile is still to be read.
                self._heard_s += late_s


async def _frame(socket: aiohttp.ClientWebSocketResponse) -> list[Message]:
    """The messages of the next frame. Raises SessionLost."""
    received = await socket.receive()
    if received.type is not aiohttp.WSMsgType.BINARY:
        raise SessionLost("closed by the supernode")
    try:
        return codec.decode(cast("bytes", received.data))
    except FrameInvalid as error:
        raise SessionLost(f"bad frame from the supernode: {error}", REFUSED_PAUSE_S) from None


def _refused(message: Refused) -> SessionLost:
    reason = f"refused ({message.code}): {message.message}"
    if message.code == "limit":
        return SessionLost(reason, LIMIT_PAUSE_S, crowded=True)
    lasting = message.code in ("version", "identity", "frame", "revoked")
    return SessionLost(reason, REFUSED_PAUSE_S if lasting else 0.0)


def _not_admitted(error: NotAdmitted) -> SessionLost:
    return SessionLost(f"not admitted: {error}", REFUSED_PAUSE_S if error.terminal else 0.0)


def _text(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        # Its own words name the TLS context.
        error = error.os_error
    return str(error) or type(error).__name__
