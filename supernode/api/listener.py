"""The API port's connections, from accept to the head of their first request: TLS or plain, and a limit on silence.

One port speaks both. A first byte of TLS begins TLS; without it the HTTP is plain, which is enough for probes and for
this machine (api.access). Who says nothing for SPEAK_S is closed. When there are too many of those, the oldest goes of
the address that has the most: a connection costs a stranger as much as it costs us, and who floods drives out itself.
What requests mean is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from supernode.shares import party_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp import web

logger = logging.getLogger(__name__)

# From the accept to the end of the first request's head, the TLS handshake included.
SPEAK_S: Final = 5.0
# Connections that have not asked for anything yet. Whole clusters come at once, also from one address (NAT).
SILENT_MAX: Final = 4096
# Of a request's head: the first line, and each header.
HEAD_LINE_BYTES_MAX: Final = 4096
# Between two requests of a member or an operator; sessions are one request.
KEEPALIVE_S: Final = 30.0
_TLS_HANDSHAKE: Final = b"\x16"
# In a turn of the loop.
_ACCEPTS_MAX: Final = 64
# Without descriptors the listener stays readable: do not spin meanwhile.
_ACCEPT_PAUSE_S: Final = 0.05


@dataclass(eq=False, slots=True)
class _Newcomer:
    """A connection that has not asked for anything yet. `timer` ends it, `opening` runs until it waits for a request.

    `accepted` is its socket until a transport has it.
    """

    party: str
    accepted: socket.socket | None
    protocol: web.RequestHandler
    timer: asyncio.TimerHandle
    opening: asyncio.Task[None] | None = None


class Listener:
    """start(), then close(); on the event loop. `tls` gives the context for new connections, None for plain alone."""

    def __init__(
        self,
        listening: socket.socket,
        server: web.Server,
        tls: Callable[[], ssl.SSLContext | None],
        *,
        speak_s: float = SPEAK_S,
        silent_max: int = SILENT_MAX,
    ) -> None:
        self._listening = listening
        self._server = server
        self._tls = tls
        self._speak_s = speak_s
        self._silent_max = silent_max
        self._loop = asyncio.get_running_loop()
        self._newcomers: dict[web.RequestHandler, _Newcomer] = {}
        # The same by who they are of, the oldest first.
        self._of_party: dict[str, dict[_Newcomer, None]] = {}
        # Until it is done with, whatever became of its connection.
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> int:
        """Connections that have not asked for anything yet."""
        return len(self._newcomers)

    def start(self) -> None:
        """Accept from now on."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    async def close(self) -> None:
        """Accept no more, and close who has not asked for anything. Idempotent."""
        self._loop.remove_reader(self._listening)
        if self._paused is not None:
            self._paused.cancel()
        for newcomer in list(self._newcomers.values()):
            self._drop(newcomer)
        await asyncio.gather(*self._opening, return_exceptions=True)

    def spoke(self, request: web.BaseRequest) -> None:
        """A request's head is here: its connection is no silent one."""
        newcomer = self._newcomers.get(request.protocol)
        if newcomer is not None:
            self._forget(newcomer)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("accept_failed %s: raise the limit of open files (ulimit -n)", error.strerror)
                self._loop.remove_reader(self._listening)
                self._paused = self._loop.call_later(_ACCEPT_PAUSE_S, self.start)
                return
            accepted.setblocking(False)
            if self.silent >= self._silent_max:
                most = max(self._of_party.values(), key=len)
                self._drop(next(iter(most)))
            self._begin(accepted, party_of(address[0]))

    def _begin(self, accepted: socket.socket, party: str) -> None:
        protocol = self._server()
        timer = self._loop.call_later(self._speak_s, self._end_silence, protocol)
        newcomer = self._newcomers[protocol] = _Newcomer(party, accepted, protocol, timer)
        self._of_party.setdefault(party, {})[newcomer] = None
        task = newcomer.opening = self._loop.create_task(self._open(newcomer, accepted))
        self._opening.add(task)
        task.add_done_callback(lambda task: self._opened(newcomer, task))

    async def _open(self, newcomer: _Newcomer, accepted: socket.socket) -> None:
        """Until it waits for a request; who hangs up before, or whose TLS fails, is of no interest but to itself."""
        with contextlib.suppress(OSError):
            first = await self._first_byte(accepted)
            if first:
                newcomer.accepted = None
                tls = self._tls() if first == _TLS_HANDSHAKE else None
                await self._loop.connect_accepted_socket(lambda: newcomer.protocol, accepted, ssl=tls)

    def _opened(self, newcomer: _Newcomer, task: asyncio.Task[None]) -> None:
        """It waits for a request, or it came to nothing, perhaps before the task ran at all."""
        self._opening.discard(task)
        newcomer.opening = None
        if newcomer.accepted is not None:
            newcomer.accepted.close()
        if newcomer.protocol.transport is None or task.cancelled():
            self._drop(newcomer)
        if not task.cancelled() and task.exception() is not None:
            logger.error("connection_not_opened", exc_info=task.exception())

    def _end_silence(self, protocol: web.RequestHandler) -> None:
        self._drop(self._newcomers[protocol])

    async def _first_byte(self, accepted: socket.socket) -> bytes:
        """The byte that comes first, which stays to be read; empty if none will. Raises OSError."""
        while True:
            with contextlib.suppress(BlockingIOError):
                return accepted.recv(1, socket.MSG_PEEK)
            readable = self._loop.create_future()
            self._loop.add_reader(accepted, _set, readable)
            try:
                await readable
            finally:
                self._loop.remove_reader(accepted)

    def _drop(self, newcomer: _Newcomer) -> None:
        """Close it, wherever it stands."""
        self._forget(newcomer)
        if newcomer.opening is not None:
            newcomer.opening.cancel()
        elif newcomer.protocol.transport is not None:
            newcomer.protocol.transport.abort()

    def _forget(self, newcomer: _Newcomer) -> None:
        """It is closed, or no newcomer any more. Idempotent."""
        newcomer.timer.cancel()
        if self._newcomers.pop(newcomer.protocol, None) is not None:
            of_party = self._of_party[newcomer.party]
            del of_party[newcomer]
            if not of_party:
                del self._of_party[newcomer.party]


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
