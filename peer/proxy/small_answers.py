"""Answers that are in memory as a whole (manifests, tag lists, refusals) on their way to clients, which may be slow.

What waits for clients is limited, in bytes and in time: who asks for much and reads nothing costs others an answer of
503 at worst, and the node no memory without end.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from peer.proxy.client_socket import STALL_LIMIT_S, ClientGone
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Shorter ones fit into the socket of a client that reads nothing.
COUNTED_BYTES_MIN: Final = 64 * 1024
# Eight of the largest, and 64 of the largest manifests that registries take.
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024


class SmallAnswers:
    """One a mirror. Lives on the event loop."""

    def __init__(self, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = 0

    async def send(self, http: web.Request, answer: web.StreamResponse) -> None:
        """Send a long one, and return once its client has taken it; a short one is left to the web server.

        Raises LocalError, before anything was sent, where too much waits already, and ClientGone.
        """
        body = answer.body if isinstance(answer, web.Response) else None
        if not isinstance(body, bytes) or len(body) < COUNTED_BYTES_MIN:
            return
        with self._room(len(body)):
            try:
                async with asyncio.timeout(STALL_LIMIT_S):
                    await answer.prepare(http)
                    await answer.write_eof()
            except TimeoutError:
                raise ClientGone(f"client did not take its answer within {STALL_LIMIT_S:.0f} s") from None

    @contextlib.contextmanager
    def _room(self, size_bytes: int) -> Iterator[None]:
        if self._waiting_bytes + size_bytes > self._waiting_bytes_max:
            raise LocalError(f"{self._waiting_bytes} bytes of answers wait for clients that are slow: ask again")
        self._waiting_bytes += size_bytes
        try:
            yield
        finally:
            self._waiting_bytes -= size_bytes
