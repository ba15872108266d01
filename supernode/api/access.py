"""Who asks, and what of the HTTP API is theirs: members, operators, strangers. Decided before a handler is called.

A member shows a certificate of this cluster that was not revoked. An operator connects from this machine, where
`local_operators` lets that do, or shows the operator's token, or a cookie that the console gave for it, which is good
for reading alone. With --open everybody is an operator. It knows no sessions.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from proto.wire.join import REFUSAL_HEADER
from supernode.console.logins import COOKIE
from supernode.membership.admission import revoked_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from supernode.console.logins import Logins
    from supernode.membership.members import Member, Members


class Rank(IntEnum):
    """What a caller may, the more the higher."""

    STRANGER = 0
    # An operator reads; what only members do needs a certificate.
    OPERATOR = 1
    MEMBER = 2


@dataclass(frozen=True, slots=True)
class Caller:
    """`member` is None without a certificate; `revoked`: one that is good for nothing any more."""

    rank: Rank
    member: Member | None = None
    revoked: bool = False


_CALLER: Final = web.RequestKey("caller", Caller)
# What a path needs; any other needs an operator or a member.
_NEEDED: Final = {
    "/healthz": Rank.STRANGER,
    "/v1/ca": Rank.STRANGER,
    "/v1/join": Rank.STRANGER,
    # A stranger gets a summary.
    "/v1/status": Rank.STRANGER,
    # Registries and Harbor: their routes ask for a secret of their own (api.event_senders).
    "/api/v1/notifications": Rank.STRANGER,
    "/registry/notifications": Rank.STRANGER,
    "/oapi/v1/jobs": Rank.STRANGER,
    "/preheats": Rank.STRANGER,
    "/_ping": Rank.STRANGER,
    "/health": Rank.STRANGER,
    "/healthy": Rank.STRANGER,
    "/v1/session": Rank.MEMBER,
    "/v1/renew": Rank.MEMBER,
    # What a browser needs to ask for the token.
    "/ui": Rank.STRANGER,
    "/ui/logout": Rank.STRANGER,
}
# A node is no operator: what it was given here would outlive its certificate, and it would take operators' places.
_NO_MEMBER: Final = frozenset({"/ui/login", "/v1/console", "/v1/console/events", "/v1/story"})
_FILES: Final = "/ui/"
_OF_HARBOR: Final = ("/oapi/v1/jobs/", "/preheats/")
# What proxies add: of whom they ask for, they are not the machine.
_FORWARDED: Final = (hdrs.FORWARDED, hdrs.VIA, hdrs.X_FORWARDED_FOR, "X-Real-IP")
_JOIN_FIRST: Final = (
    "this supernode admits members only: give the peer a join token (layercast-supernode token create; --join-file), "
    "or start supernode and peers with --open to try things out"
)
_OPERATORS_ALONE: Final = "for operators: ask with the operator's token, and without a node's certificate"
_READ_BY_MEMBERS: Final = (
    "for members and operators: ask from the supernode's own machine, or over https with "
    "'Authorization: Bearer TOKEN', the token being in ca/operator.token of its --data-dir"
)


class Access:
    """`members` is None with --open. Not `local_operators`: to connect from this machine makes nobody one."""

    def __init__(self, members: Members | None, logins: Logins, *, local_operators: bool = True) -> None:
        self._members = members
        self._local_operators = local_operators
        self._logins = logins

    def middleware(self, spoke: Callable[[web.Request], None]) -> Middleware:
        """Decides for every request. `spoke` is told of each: its connection is no silent one."""

        @web.middleware
        async def decide(request: web.Request, handler: Handler) -> web.StreamResponse:
            spoke(request)
            caller = request[_CALLER] = self.caller(request)
            if caller.revoked and caller.member is not None:
                return refused(403, revoked_text(caller.member.peer))
            # One of Harbor's jobs needs what all of them do.
            path = request.path.rpartition("/")[0] if request.path.startswith(_OF_HARBOR) else request.path
            needed = Rank.STRANGER if _is_file(request) else _NEEDED.get(path, Rank.OPERATOR)
            if self._members is not None and caller.rank < needed:
                return refused(403, _JOIN_FIRST if needed is Rank.MEMBER else _READ_BY_MEMBERS)
            if caller.rank is Rank.MEMBER and path in _NO_MEMBER:
                return refused(403, _OPERATORS_ALONE)
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                self._end_stranger(request, refusal)
                raise
            self._end_stranger(request, response)
            return response

        return decide

    def _end_stranger(self, request: web.Request, answer: web.StreamResponse) -> None:
        """A stranger's connection is good for one answer, whatever it says; with --open all from elsewhere are."""
        if caller_of(request).rank is Rank.STRANGER or (self._members is None and not _is_local(request)):
            answer.force_close()

    def caller(self, request: web.Request) -> Caller:
        """Who asks."""
        if self._members is None:
            return Caller(Rank.OPERATOR)
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate is not None:
            member = self._members.member(certificate)
            revoked = self._members.is_revoked(member.peer)
            return Caller(Rank.STRANGER if revoked else Rank.MEMBER, member, revoked)
        if self._local_operators and _is_local(request):
            return Caller(Rank.OPERATOR)
        if tls is not None and (self._shows_token(request) or self._is_logged_in(request)):
            return Caller(Rank.OPERATOR)
        return Caller(Rank.STRANGER)

    def _is_logged_in(self, request: web.Request) -> bool:
        """At the console, which reads: a page elsewhere cannot have a browser change anything in its user's name."""
        return request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and self._logins.holds(request.cookies.get(COOKIE, ""))

    def _shows_token(self, request: web.Request) -> bool:
        assert self._members is not None
        kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        wanted = self._members.operator_token
        # What is no UTF-8 comes as surrogates, and is no token.
        shown = token.strip().encode("utf-8", "surrogateescape")
        return kind.lower() == "bearer" and hmac.compare_digest(shown, wanted.encode())


def _is_file(request: web.Request) -> bool:
    """Of the console: the same for everybody."""
    return request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and request.path.startswith(_FILES)


def caller_of(request: web.Request) -> Caller:
    """As the middleware found."""
    return request[_CALLER]


def refused(status: int, message: str) -> web.Response:
    """One line, in the body for people and in a header for whoever wanted a WebSocket. The connection ends with it."""
    response = web.Response(status=status, text=f"{message}\n", headers={REFUSAL_HEADER: message})
    response.force_close()
    return response


def _is_local(request: web.Request) -> bool:
    """From this machine, by an address: a web page whose host name was bound to it anew is none of ours.

    Nor is whom a proxy on this machine asks for, if it says so.
    """
    transport = request.transport
    if transport is None or request.remote is None or any(name in request.headers for name in _FORWARDED):
        return False
    ours = transport.get_extra_info("sockname")[0]
    try:
        if not ipaddress.ip_address(request.remote).is_loopback and request.remote != ours:
            return False
        host = request.url.host or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
