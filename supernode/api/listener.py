"""The API port's connections, from accept to the head of their first request: TLS or plain, and a limit on silence.

One port speaks both. A first byte of TLS begins TLS; without it the HTTP is plain, which is enough for probes and for
this machine (api.access). Who says nothing for SPEAK_S, or is one too many of those, is closed: a connection costs a
stranger as much as it costs us. What requests mean is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp import web

logger = logging.getLogger(__name__)

# From the accept to the end of the first request's head, the TLS handshake included.
SPEAK_S: Final = 5.0
# Connections that have not asked for anything yet; beyond it the oldest goes. Whole clusters come at once.
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
        # What waits for a first byte or a TLS handshake, the oldest first.
        self._opening: dict[asyncio.Task[None], None] = {}
        # What waits for a request's head, the oldest first, each with what closes it in time.
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._paused: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> int:
        """Connections that have not asked for anything yet."""
        return len(self._opening) + len(self._silent)

    def start(self) -> None:
        """Accept from now on."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    async def close(self) -> None:
        """Accept no more, and close who has not asked for anything. Idempotent."""
        self._loop.remove_reader(self._listening)
        if self._paused is not None:
            self._paused.cancel()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for protocol in list(self._silent):
            self._drop(protocol)

    def spoke(self, request: web.BaseRequest) -> None:
        """A request's head is here: its connection is no silent one."""
        timer = self._silent.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("accept_failed %s: raise the limit of open files (ulimit -n)", error.strerror)
                self._loop.remove_reader(self._listening)
                self._paused = self._loop.call_later(_ACCEPT_PAUSE_S, self.start)
                return
            accepted.setblocking(False)
            if self.silent >= self._silent_max:
                self._drop_oldest()
            task = self._loop.create_task(self._open(accepted))
            self._opening[task] = None
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("connection_not_opened", exc_info=task.exception())

    async def _open(self, accepted: socket.socket) -> None:
        """Until it waits for a request."""
        protocol = self._server()
        ends_s = self._loop.time() + self._speak_s
        # Before it can have asked for anything.
        self._silent[protocol] = self._loop.call_at(ends_s, self._drop, protocol)
        handed_over = opened = False
        try:
            async with asyncio.timeout_at(ends_s):
                first = await self._first_byte(accepted)
                if not first:
                    return
                tls = self._tls() if first == _TLS_HANDSHAKE else None
                handed_over = True
                await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls)
                opened = True
        except (OSError, TimeoutError):
            # Of no interest but to who connected: TLS that fails, a hang-up, silence.
            return
        finally:
            if not opened:
                self._drop(protocol)
            if not handed_over:
                accepted.close()

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

    def _drop(self, protocol: web.RequestHandler) -> None:
        timer = self._silent.pop(protocol, None)
        if timer is not None:
            timer.cancel()
        if protocol.transport is not None:
            protocol.transport.abort()

    def _drop_oldest(self) -> None:
        """One that is opened before one that is not: in a handshake something happens."""
        for protocol in self._silent:
            if protocol.transport is not None:
                self._drop(protocol)
                return
        for task in self._opening:
            del self._opening[task]
            task.cancel()
            return


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
