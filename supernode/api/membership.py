"""GET /v1/ca, POST /v1/join, POST /v1/renew: how a node becomes a member, and stays one."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.runtime.logs import LogLimit
from proto.wire.join import REQUEST_BYTES_MAX
from supernode.api.access import caller_of, refused
from supernode.membership.admission import JoinRefused
from supernode.membership.database import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from supernode.api.parts import ApiParts
    from supernode.membership.admission import Admitted

logger = logging.getLogger(__name__)

_BODY_S: Final = 5.0
_OPEN: Final = "this supernode runs with --open: it has no members; start the peer with --open too, and without a token"
_refusals = LogLimit()


async def authorities(parts: ApiParts, _: web.Request) -> web.Response:
    """The certificates of the authorities, for a node that has a token and checks their fingerprint."""
    if parts.members is None:
        return refused(404, _OPEN)
    return web.Response(text=parts.members.bundle, content_type="application/x-pem-file")


async def join(parts: ApiParts, request: web.Request) -> web.Response:
    """A node with a token asks for its certificate."""
    if parts.members is None:
        return refused(404, _OPEN)
    if request.transport is None or request.transport.get_extra_info("ssl_object") is None:
        return refused(403, "ask over https: the answer is believed by its certificate alone")
    return await _answer(parts, request, "joined", parts.members.join(await _body(request), request.remote or ""))


async def renew(parts: ApiParts, request: web.Request) -> web.Response:
    """A member asks for a new certificate."""
    member = caller_of(request).member
    if parts.members is None or member is None:
        return refused(404, _OPEN)
    return await _answer(parts, request, "renewed", parts.members.renew(member.peer, await _body(request)))


async def _body(request: web.Request) -> bytes:
    """Small, and soon."""
    if (request.content_length or 0) > REQUEST_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(REQUEST_BYTES_MAX, request.content_length or 0)
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def _answer(parts: ApiParts, request: web.Request, result: str, admission: Awaitable[Admitted]) -> web.Response:
    try:
        admitted = await admission
    except JoinRefused as error:
        parts.count_join(error.code)
        _refusals.log(logger, logging.WARNING, "join_refused code=%s address=%s %s", error.code, request.remote, error)
        return refused(400 if error.code == "malformed" else 403, str(error))
    except DatabaseError as error:
        parts.count_join("failed")
        logger.error("join_failed address=%s error=%s", request.remote, error)
        return refused(503, "the supernode cannot write its database of members: its disk needs room")
    parts.count_join(result)
    return web.json_response({"certificate": admitted.certificate, "authorities": admitted.authorities})
