"""/ui/, its login, and the snapshots that it shows: as JSON, and as server-sent events.

The files are for everybody, what they show is for operators. Who logs in gets a cookie, which is good for reading alone
(api.access).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import ETag, web

from supernode.api.access import refused
from supernode.console import pages
from supernode.console.feed import VIEWERS_MAX, TooManyViewers
from supernode.console.logins import COOKIE, LIFE_S

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

# A viewer that does not take a snapshot in this time is gone.
_TAKE_S: Final = 30.0
# In milliseconds, what a browser waits for before it asks again.
_AGAIN: Final = b"retry: 2000\n\n"


async def page(parts: ApiParts, request: web.Request) -> web.Response:
    """One of the files, or 304."""
    found = parts.console.pages.get(request.match_info.get("file", ""))
    if found is None:
        raise web.HTTPNotFound
    asked = request.if_none_match or ()
    if any(each.value in (found.etag, "*") for each in asked):
        response = web.Response(status=304, headers=pages.HEADERS)
    else:
        response = web.Response(body=found.content, headers={**pages.HEADERS, "Content-Type": found.content_type})
    response.etag = ETag(found.etag)
    return response


async def to_page(_: ApiParts, __: web.Request) -> web.Response:
    """/ui is where people look."""
    raise web.HTTPMovedPermanently("/ui/")


async def snapshot(parts: ApiParts, _: web.Request) -> web.Response:
    """The cluster as it is, at most an interval ago."""
    return web.Response(
        body=parts.console.feed.latest(), content_type="application/json", headers={"Cache-Control": "no-store"}
    )


async def events(parts: ApiParts, request: web.Request) -> web.StreamResponse:
    """A snapshot an interval, for an EventSource; none after the logout of who reads by a cookie."""
    cookie = request.cookies.get(COOKIE, "")
    logged_in = parts.console.logins.holds(cookie)
    following = parts.console.feed.follow()
    try:
        first = await anext(following)
    except TooManyViewers:
        return refused(503, f"{VIEWERS_MAX} look at the console already")
    except StopAsyncIteration:
        return refused(503, "the supernode is stopping")
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    )
    async with contextlib.aclosing(following):
        # Whoever looks hangs up when the page is left: nobody's fault.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await _send(request, response, _AGAIN + _event(first))
            async for each in following:
                if logged_in and not parts.console.logins.holds(cookie):
                    break
                await _send(request, response, _event(each))
    return response


async def _send(request: web.Request, response: web.StreamResponse, content: bytes) -> None:
    """Raises ConnectionError, also where it is not taken: the end of the answer would wait there as well."""
    try:
        async with asyncio.timeout(_TAKE_S):
            await response.write(content)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None


def _event(snapshot: bytes) -> bytes:
    """It has no line break."""
    return b"data: " + snapshot + b"\n\n"


async def login(parts: ApiParts, _: web.Request) -> web.Response:
    """Whoever gets here has shown that he is an operator."""
    response = web.Response(status=204)
    response.set_cookie(
        COOKIE,
        parts.console.logins.begin(),
        max_age=int(LIFE_S),
        path="/",
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    return response


async def logout(parts: ApiParts, request: web.Request) -> web.Response:
    """The cookie is good for nothing any more."""
    parts.console.logins.end(request.cookies.get(COOKIE, ""))
    response = web.Response(status=204)
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response
