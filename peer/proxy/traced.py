"""A span for each request of a client, from its head to the last byte of the answer; what it waits for is below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.access import ACCESS, Access
from peer.proxy.named_upstream import NAMED
from proto.runtime.logs import without_secrets

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from peer.node.blob_spans import BlobSpans
    from proto.ids import Digest

_PATH_MAX = 512
_AGENT_MAX = 100


def middleware(spans: BlobSpans, quiet: frozenset[str] = frozenset()) -> Middleware:
    """Inside the access log's. Requests for `quiet` paths, and tunnels, have none."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in quiet or request.method == "CONNECT":
            return await handler(request)
        access = request.get(ACCESS) or Access()
        request[ACCESS] = access
        agent = request.headers.get("User-Agent", "")[:_AGENT_MAX]
        span = spans.traces.begin(request.method[:16], method=request.method[:16], agent=without_secrets(agent))
        read: list[Digest] = []

        def reading(digest: Digest) -> None:
            read.append(digest)
            spans.reading(digest, span)

        access.reading = reading
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            for digest in read:
                spans.read(digest, span)
            named = request.get(NAMED)
            target = (named.target if named is not None else request.raw_path).partition("?")[0].partition("#")[0]
            span.end(
                "" if status < 500 else str(status),
                path=without_secrets(target[:_PATH_MAX]),
                status=status,
                kind=access.kind,
                upstream=access.upstream,
                bytes=sum(access.sent_bytes.values()),
                source=",".join(access.sent_bytes),
            )

    return trace
