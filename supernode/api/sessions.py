"""GET /v1/session: the WebSocket of a peer's session, refused while the supernode is not ready or is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from supernode.session.hello import SessionEnd
from supernode.session.session import WebSocketSession

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts
    from supernode.control.message_handler import MessageHandler
    from supernode.metrics import Metrics
    from supernode.session.session import Terms


class SessionDoor:
    """Opens sessions and counts their sockets, from before the handshake on."""

    def __init__(self, handler: MessageHandler, metrics: Metrics, terms: Terms) -> None:
        self._handler = handler
        self._metrics = metrics
        self._terms = terms
        self._sockets = 0
        self._no_session = asyncio.Event()
        self._no_session.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Until the session ends."""
        refusal = None
        sessions_max = self._terms.limits.sessions_max
        if self._sockets >= sessions_max:
            refusal = SessionEnd("limit", f"{sessions_max} sessions are open already")
        opened = WebSocketSession(self._handler, self._metrics, self._terms)
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
