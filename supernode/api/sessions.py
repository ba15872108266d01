"""GET /v1/session: the WebSocket of a peer's session, refused while the supernode is not ready or is full."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

from aiohttp import web

from proto.wire.handshake import CertificateDue
from supernode.api.access import caller_of
from supernode.session.hello import SessionEnd
from supernode.session.session import WebSocketSession
from supernode.shares import is_over_share, party_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proto.ids import PeerId
    from supernode.api.parts import ApiParts
    from supernode.control.message_handler import MessageHandler
    from supernode.membership.members import Member, Members
    from supernode.metrics import Metrics
    from supernode.session.session import Terms

T = TypeVar("T")

# A renewal costs the supernode a few milliseconds: nodes that are told together spread over so long each.
_RENEWAL_S: Final = 0.02
# Of one member, the session that is about to be replaced and attempts that were given up included.
CONNECTIONS_PER_MEMBER_MAX: Final = 8


class SessionServer:
    """Opens sessions and counts their sockets, from before the handshake on. `members` is None with --open.

    Nobody takes all of them: a member has few, and an address, which may be many nodes' (NAT), has its share.
    """

    def __init__(self, handler: MessageHandler, metrics: Metrics, terms: Terms, members: Members | None = None) -> None:
        self._handler = handler
        self._metrics = metrics
        self._terms = terms
        self._members = members
        self._sockets = 0
        self._of_address: Counter[str] = Counter()
        self._of_member: Counter[PeerId] = Counter()
        self._no_session = asyncio.Event()
        self._no_session.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Until the session ends."""
        member, address = caller_of(request).member, request.remote or ""
        peer = None if member is None else member.peer
        refusal = self._refusal(party_of(address), peer)
        opened = WebSocketSession(self._handler, self._metrics, self._terms)
        if member is not None:
            self._recognise(opened, member, address)
        with self._counted(party_of(address), peer):
            return await opened.run(request, refusal, peer)

    def _refusal(self, party: str, peer: PeerId | None) -> SessionEnd | None:
        limits = self._terms.limits
        if self._sockets >= limits.sessions_max:
            return SessionEnd("limit", f"{limits.sessions_max} sessions are open already")
        if peer is not None and self._of_member[peer] >= CONNECTIONS_PER_MEMBER_MAX:
            return SessionEnd("limit", f"this node has {CONNECTIONS_PER_MEMBER_MAX} connections open already")
        taken, parties = self._of_address[party], len(self._of_address) + (party not in self._of_address)
        most, least = limits.sessions_max, limits.sessions_per_address_min
        if is_over_share(taken, by_all=self._sockets, most=most, parties=parties, least=least):
            return SessionEnd("limit", f"nodes at {party} have {taken} sessions open, their share of --sessions-max")
        return None

    @contextlib.contextmanager
    def _counted(self, party: str, peer: PeerId | None) -> Iterator[None]:
        """One more socket, while it lasts."""
        self._sockets += 1
        self._no_session.clear()
        self._of_address[party] += 1
        if peer is not None:
            self._of_member[peer] += 1
        try:
            yield
        finally:
            self._sockets -= 1
            _uncount(self._of_address, party)
            if peer is not None:
                _uncount(self._of_member, peer)
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


def _uncount(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


async def session(parts: ApiParts, request: web.Request) -> web.StreamResponse:
    """A peer connects."""
    if parts.health.problem:
        return web.Response(text=f"{parts.health.problem}\n", status=503)
    return await parts.serve_session(request)
