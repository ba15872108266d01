"""Passes small requests through: `/v2/`, manifests, tags, referrers, and the HEAD of a blob that is not known here.

Byte for byte, with every header that is meant for the other end. It never changes a body, and begins no answer before
it has all of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.client_socket import ClientGone
from peer.proxy.heads import for_client, for_origin
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from peer.proxy.client_request import ClientRequest
    from peer.registry.origins import Origins


async def relay(asked: ClientRequest, origins: Origins, limit_s: float) -> web.Response:
    """The origin's answer to this very request. `limit_s` is for all of it. Raises UpstreamError and ClientGone."""
    try:
        async with asyncio.timeout(limit_s):
            headers = for_origin(asked.http.headers)
            answer = await origins.of(asked.upstream).manifest(asked.http.method, asked.registry, headers)
    except TimeoutError:
        message = f"{asked.upstream.host} did not answer within {limit_s:.0f} s"
        raise UpstreamError(message, UpstreamKind.UNAVAILABLE) from None
    if asked.hung_up:
        raise ClientGone("client hung up before its answer")
    return web.Response(
        status=answer.status,
        reason=answer.reason,
        body=answer.body,
        headers=for_client(asked.registry, answer.status, answer.headers),
    )


async def relay_refusal(asked: ClientRequest, origins: Origins, limit_s: float) -> web.Response | None:
    """The same if the origin refuses or redirects. None if it succeeds."""
    answer = await relay(asked, origins, limit_s)
    return answer if answer.status >= 300 else None
