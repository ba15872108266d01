"""GET /v1/session: the WebSocket of a peer's session, refused while the supernode is not ready or is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.wire.messages import CertificateDue
from supernode.api.access import caller_of
from supernode.session.hello import SessionEnd
from supernode.session.session import WebSocketSession

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts
    from supernode.control.message_handler import MessageHandler
    from supernode.membership.members import Member, Members
    from supernode.metrics import Metrics
    from supernode.session.session import Terms

# A renewal costs the supernode a few milliseconds: nodes that are told together spread over so long each.
_RENEWAL_S: Final = 0.02


class SessionServer:
    """Opens sessions and counts their sockets, from before the handshake on. `members` is None with --open."""

    def __init__(self, handler: MessageHandler, metrics: Metrics, terms: Terms, members: Members | None = None) -> None:
        self._handler = handler
        self._metrics = metrics
        self._terms = terms
        self._members = members
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
        member = caller_of(request).member
        if member is not None:
            self._recognise(opened, member, request.remote or "")
        self._sockets += 1
        self._no_session.clear()
        try:
            return await opened.run(request, refusal, None if member is None else member.peer)
        finally:
            self._sockets -= 1
            if not self._sockets:
                self._no_session.set()

    def _recognise(self, opened: WebSocketSession, member: Member, address: str) -> None:
        assert self._members is not None
        self._members.record_seen(member, address)
        if member.due:
            # Waits for the session to open.
            opened.send(self.certificate_due(), soon=False)

    def certificate_due(self) -> CertificateDue:
        """For all sessions, after a rotation, or for one that comes with an old certificate."""
        return CertificateDue(1.0 + self._sockets * _RENEWAL_S)

    async def wait_for_no_session(self) -> None:
        """Return once no session is open."""
        await self._no_session.wait()


async def session(parts: ApiParts, request: web.Request) -> web.StreamResponse:
    """A peer connects."""
    if parts.health.problem:
        return web.Response(text=f"{parts.health.problem}\n", status=503)
    return await parts.serve_session(request)
