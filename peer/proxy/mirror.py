"""The mirror: what container clients speak to. Reads the request, finds who answers it, and words our refusals.

Mounted by the peer's app with `build_app`, on a server whose header limits are 64 KiB and that does not decompress.
Every refusal before the headers is a registry error body; afterwards a response is only ever cut short.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.blob_stream import BlobStream
from peer.proxy.client_request import ProxyLoop, understand
from peer.proxy.heads import method_refused, refused
from peer.proxy.passthrough import PassThrough
from peer.proxy.relay import relay
from proto.errors import LayercastError
from proto.oci.registry_errors import Refusal, refusal_for
from proto.oci.routes import BlobRoute, ManifestRoute, Ping, ReferrersRoute, TagsRoute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from peer.proxy.client_request import ClientRequest
    from peer.proxy.context import ProxyContext
    from proto.oci.routes import Route

_log = logging.getLogger(__name__)

_KINDS: dict[type[Route], str] = {
    Ping: "ping",
    BlobRoute: "blob",
    ManifestRoute: "manifest",
    TagsRoute: "tags",
    ReferrersRoute: "referrers",
}
# A client that hung up before it had an answer; the number that web servers log for this.
_CLIENT_CLOSED = 499


def build_app(context: ProxyContext) -> web.Application:
    """The application that answers `/v2` and all below it; other routes may be added before it is run."""
    mirror = _Mirror(context)
    app = web.Application()
    app.cleanup_ctx.append(mirror.running)
    app.router.add_route("*", "/v2", mirror.handle)
    app.router.add_route("*", "/v2/{rest:.*}", mirror.handle)
    return app


class _Mirror:
    def __init__(self, context: ProxyContext) -> None:
        self._context = context

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """What needs the event loop, from start to end of the application."""
        passthrough = PassThrough(self._context)
        self._blobs = BlobStream(self._context, passthrough)
        yield
        await asyncio.to_thread(passthrough.close)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request and count it."""
        kind, status = "unknown", _CLIENT_CLOSED
        asked: ClientRequest | None = None
        try:
            if request.method not in ("GET", "HEAD"):
                response: web.StreamResponse = refused(method_refused(request.method))
            else:
                asked = understand(request, self._context.origins.upstreams())
                kind = _KINDS[type(asked.registry.route)]
                response = await self._answer(asked)
            status = response.status
        except LayercastError as error:
            response = refused(_refusal(error, asked), asked.registry if asked is not None else None)
            status = response.status
            _log.info("refused kind=%s status=%d %s", kind, status, error)
        except ConnectionError:
            # The client hung up, which is its right: nobody reads this answer.
            _log.debug("client_gone kind=%s", kind)
            response = web.Response(status=_CLIENT_CLOSED)
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._context.metrics.answered(kind, status)
        return response

    async def _answer(self, asked: ClientRequest) -> web.StreamResponse:
        if isinstance(asked.registry.route, BlobRoute):
            answer = self._blobs.head if asked.http.method == "HEAD" else self._blobs.get
            return await answer(asked)
        return await relay(asked, self._context.origins, self._context.limits.relay_s)


def _refusal(error: LayercastError, asked: ClientRequest | None) -> Refusal:
    if isinstance(error, ProxyLoop):
        return Refusal(508, "UNSUPPORTED", str(error))
    return refusal_for(error, asked.registry.route if asked is not None else None)
