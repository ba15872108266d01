"""GET /v1/session: the WebSocket of a peer's session, refused while the supernode is not ready or is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from supernode.session.hello import SessionEnd
from supernode.session.session import Limits, SessionOwner, WebSocketSession

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts
    from supernode.metrics import Metrics


class SessionDoor:
    """Opens sessions and counts their sockets, from before the handshake on."""

    def __init__(
        self,
        owner: SessionOwner,
        metrics: Metrics,
        limits: Limits,
        *,
        supernode_key: bytes,
        epoch: int,
        agent: str,
        transport: str,
    ) -> None:
        self._owner = owner
        self._metrics = metrics
        self._limits = limits
        self._key = supernode_key
        self._epoch = epoch
        self._agent = agent
        self._transport = transport
        self._sockets = 0
        self._no_session = asyncio.Event()
        self._no_session.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Until the session ends."""
        refusal = None
        if self._sockets >= self._limits.sessions_max:
            refusal = SessionEnd("limit", f"{self._limits.sessions_max} sessions are open already")
        opened = WebSocketSession(
            self._owner, self._key, self._epoch, self._limits, self._agent, self._metrics, self._transport
        )
        self._sockets += 1
        self._no_session.clear()
        try:
            return await opened.run(request, refusal)
        finally:
            self._sockets -= 1
            if not self._sockets:
                self._no_session.set()

    async def wait_for_no_session(self) -> None:
        """Return once no session is open."""
        await self._no_session.wait()


async def session(parts: ApiParts, request: web.Request) -> web.StreamResponse:
    """A peer connects."""
    if parts.health.problem:
        return web.Response(text=f"{parts.health.problem}\n", status=503)
    return await parts.serve_session(request)
