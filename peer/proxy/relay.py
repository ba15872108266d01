"""Passes small requests through: `/v2/`, manifests, tags, referrers, and the HEAD of a blob that is not known here.

Byte for byte, with every header that is meant for the other end. It never changes a body. A response that has begun and
cannot be finished is cut short; no error is added to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.heads import for_client, for_origin
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.proxy.client_request import ClientRequest
    from peer.registry.origins import Origins

_log = logging.getLogger(__name__)


async def relay(asked: ClientRequest, origins: Origins, limit_s: float) -> web.StreamResponse:
    """The origin's answer to this very request, sent on. `limit_s` is for all of it.

    Raises UpstreamError while nothing has been sent, and ConnectionError when the client hung up; a response that
    has begun is cut when the origin breaks off.
    """
    answer = await _answer(asked, origins, limit_s, lambda _: True)
    assert answer is not None
    return answer


async def relay_refusal(asked: ClientRequest, origins: Origins, limit_s: float) -> web.StreamResponse | None:
    """The same if the origin refuses or redirects. If it succeeds: None, and nothing is sent."""
    return await _answer(asked, origins, limit_s, lambda status: status >= 300)


async def _answer(
    asked: ClientRequest,
    origins: Origins,
    limit_s: float,
    wanted: Callable[[int], bool],
) -> web.StreamResponse | None:
    response: web.StreamResponse | None = None
    try:
        async with asyncio.timeout(limit_s):
            headers = for_origin(asked.http.headers)
            answer = await origins.of(asked.upstream).manifest(asked.http.method, asked.registry, headers)
            with contextlib.closing(answer):
                if not wanted(answer.status):
                    return None
                response = web.StreamResponse(
                    status=answer.status,
                    reason=answer.reason,
                    headers=for_client(asked.registry, answer.status, answer.headers),
                )
                await response.prepare(asked.http)
                while chunk := await answer.read():
                    await response.write(chunk)
                await response.write_eof()
    except TimeoutError:
        if response is None or not response.prepared:
            message = f"{asked.upstream.host} did not answer within {limit_s:.0f} s"
            raise UpstreamError(message, UpstreamKind.UNAVAILABLE) from None
        _cut(asked, "timeout")
    except UpstreamError:
        if response is None or not response.prepared:
            raise
        _cut(asked, "broken off")
    return response


def _cut(asked: ClientRequest, reason: str) -> None:
    _log.warning("forward_cut upstream=%s reason=%s", asked.upstream.host, reason)
    asked.cut()
