"""The mirror: what container clients speak to. Reads the request, finds who answers it, and words our refusals.

Mounted by the peer's app with `build_app`, on a server whose header limits are 64 KiB and that does not decompress.
Every refusal before the headers is a registry error body; afterwards a response is only ever cut short.

A shared blob leaves by sendfile from the store as far as the node may hand it out, and waits there for more; from
memory (peer.proxy.checked_sending) where each byte is to be checked each time. When the swarm fails, the same response
goes on from the origin at the byte reached; when the blob itself is wrong it ends short. What may be sent is the
provider's word; nothing is decided about swarms here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from peer.node.blobs import BlobFailed, DigestMismatch
from peer.proxy import push
from peer.proxy.access import access_of
from peer.proxy.blob_opening import ReadRefused, names, note_given, open_blob
from peer.proxy.checked_sending import CheckedSending
from peer.proxy.client_request import ClientRequest
from peer.proxy.client_socket import AT_ONCE_MAX_BYTES, take_over
from peer.proxy.forward_proxy import ForwardProxy
from peer.proxy.heads import (
    STALE,
    asked_range,
    blob_response,
    check_empty,
    mark_stale,
    method_refused,
    multipart_response,
    not_modified,
    refused,
    unsatisfiable,
)
from peer.proxy.logins import TOKEN_PATH, Logins
from peer.proxy.manifests import Manifests
from peer.proxy.named_upstream import NAMED
from peer.proxy.passthrough import PassThrough, relay
from peer.proxy.runner import HostRefused, check_host, name_server
from peer.proxy.small_answers import SmallAnswers
from peer.proxy.target import understand
from proto.errors import LayercastError, LocalError, RemoteError
from proto.oci.multipart import Multipart
from proto.oci.ranges import Part, select
from proto.oci.registry_errors import Refusal, refusal_for
from proto.oci.routes import (
    HOP_HEADER,
    BlobRoute,
    CatalogRoute,
    ForeignRoute,
    ManifestRoute,
    OtherRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
    UploadRoute,
    parse_named,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler, Middleware

    from peer.node.blobs import OpenedBlob
    from peer.proxy.client_request import ProxyContext
    from peer.proxy.client_socket import ClientSocket
    from peer.proxy.forward_proxy import ForwardParts
    from proto.oci.routes import Route

_log = logging.getLogger(__name__)

_KINDS: dict[type[Route], str] = {
    Ping: "ping",
    BlobRoute: "blob",
    ManifestRoute: "manifest",
    TagsRoute: "tags",
    ReferrersRoute: "referrers",
    CatalogRoute: "catalog",
    OtherRoute: "other",
    UploadRoute: "upload",
    ForeignRoute: "foreign",
}
# A client that hung up before it had an answer; the number that web servers log for this.
_CLIENT_CLOSED = 499
# How often a blob is opened for one request: it is begun anew once, before anything of it was sent.
OPENED_MAX: Final = 2


class ProxyLoop(RemoteError):
    """The request has already been through a proxy of ours: following it would never end."""


def build_app(
    context: ProxyContext, forward: ForwardParts | None = None, first: Sequence[Middleware] = ()
) -> web.Application:
    """The application that answers `/v2` and all below it; other routes may be added before it is run.

    With `forward` it is a forward proxy, too. `first` stand before all else, the outermost first.
    """
    logins = Logins(context)
    mirror = _Mirror(context, logins)
    app = web.Application(middlewares=[mirror.check_name])
    if forward is not None:
        ForwardProxy(forward, mirror.handle).join(app)
    app.middlewares[:0] = first
    app.on_response_prepare.append(name_server)
    app.router.add_route("*", TOKEN_PATH, logins.handle)
    for path in ("/v2", "/v2/{rest:.*}"):
        app.router.add_route("*", path, mirror.handle, expect_handler=push.wait_for_origin)
    return app


class _Mirror:
    def __init__(self, context: ProxyContext, logins: Logins) -> None:
        self._context = context
        self._passthrough = PassThrough(context)
        self._checked = CheckedSending()
        self._small_answers = SmallAnswers()
        self._manifests = Manifests(context)
        self._logins = logins

    @web.middleware
    async def check_name(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What is answered beside the mirror (/metrics) is for no page either that came by a name of its own."""
        if not request.path.startswith("/v2"):
            try:
                check_host(request, self._context.hosts)
            except HostRefused as error:
                return refused(_refusal(error, None))
        return await handler(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request and count it."""
        kind, status = "unknown", _CLIENT_CLOSED
        asked: ClientRequest | None = None
        try:
            if request.method not in ("GET", "HEAD", *push.METHODS):
                response: web.StreamResponse = refused(method_refused(request.method))
            else:
                asked = self._understand(request)
                kind = _KINDS[type(asked.registry.route)]
                route = asked.registry.route
                blob = route.digest if isinstance(route, BlobRoute) else None
                access_of(request).understood(kind, asked.upstream.host, blob)
                response = await self._answer(asked)
                self._logins.lead_here(asked, response)
                await self._small_answers.send(request, response)
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

    def _understand(self, http: web.Request) -> ClientRequest:
        """Read a request's target (path and query as sent) and find its upstream in the allow-list.

        Raises NameInvalid, PathUnknown, UpstreamNotAllowed, HostRefused or ProxyLoop.
        """
        if HOP_HEADER in http.headers:
            raise ProxyLoop("this request came through Layercast already: an upstream leads back to a mirror of ours")
        named = http.get(NAMED)
        if named is not None:
            path, _, query = named.target.partition("?")
            return ClientRequest(http, parse_named(path, query, named.upstream.host), named.upstream, self._context)
        check_host(http, self._context.hosts)
        request, upstream = understand(http.raw_path, http.headers, self._context.origins.upstreams())
        return ClientRequest(self._logins.unsealed(http, request, upstream), request, upstream, self._context)

    async def _answer(self, asked: ClientRequest) -> web.StreamResponse:
        """Raises UpstreamError, LocalError or ClientGone while nothing was sent."""
        if push.is_write(asked):
            try:
                return await push.pass_on(asked)
            finally:
                self._context.answers.changed(asked.upstream.host, asked.registry.route.path)
        if not isinstance(asked.registry.route, BlobRoute):
            return await self._answer_small(asked)
        if asked.http.method == "HEAD":
            return await self._head(asked)
        headers_by = asyncio.get_running_loop().time() + self._context.limits.headers_s
        for _ in range(OPENED_MAX):
            blob = None
            try:
                blob = await open_blob(asked)
                if blob is None:
                    break
                await _first_byte(asked, blob, headers_by)
                return await self._send(asked, blob)
            except ReadRefused as refusal:
                _log.info("read_refused %s %s", names(asked), refusal)
                return await self._passthrough.refuse(asked)
            except DigestMismatch as error:
                # What the origin says has changed since: its size, or that it gives the blob at all.
                _log.warning("blob_begun_anew %s %s", names(asked), error)
            except BlobFailed as error:
                _log.warning("blob_not_begun %s %s", names(asked), error)
                break
            finally:
                if blob is not None:
                    blob.close()
        return await self._passthrough.get(asked)

    async def _answer_small(self, asked: ClientRequest) -> web.StreamResponse:
        route = asked.registry.route
        if isinstance(route, ManifestRoute):
            return await self._manifests.get(asked)
        if isinstance(route, Ping):
            return self._logins.answer_to_ping(asked) or await self._manifests.ping(asked)
        return await relay(asked)

    # --- a blob --------------------------------------------------------------------------------------------------

    async def _head(self, asked: ClientRequest) -> web.StreamResponse:
        """Size and existence: known here for what is public, else the origin's answer to this very client."""
        digest = asked.blob.digest
        size = self._context.provider.known_size(digest, asked.source) if digest.checked else None
        if size is not None:
            return not_modified(asked.registry, asked.http, digest) or blob_response(
                asked.registry, asked.blob.digest, Part(200, 0, size, size)
            )
        return await relay(asked)

    async def _send(self, asked: ClientRequest, blob: OpenedBlob) -> web.StreamResponse:
        """The blob, or ranges of it. Raises TooManyRanges."""
        size = blob.size_bytes
        unchanged = not_modified(asked.registry, asked.http, asked.blob.digest)
        if unchanged is not None:
            return unchanged
        parts = select(asked_range(asked.http, asked.blob.digest), size)
        if parts[0].status == 416:
            return refused(unsatisfiable(parts[0]), asked.registry)
        check_empty(asked.blob.digest, size)
        multipart = Multipart(parts)
        if len(parts) > 1:
            response = multipart_response(asked.registry, asked.blob.digest, multipart)
        else:
            response = blob_response(asked.registry, asked.blob.digest, parts[0])
        note_given(asked, size)
        if STALE in asked.http:
            mark_stale(response.headers)
        client = await take_over(asked.http, response, self._context.pool)
        try:
            if len(parts) > 1:
                await self._send_parts(asked, blob, client, multipart)
            else:
                await self._send_body(asked, blob, client, parts[0])
        finally:
            client.close()
        await response.write_eof()
        return response

    async def _send_parts(
        self, asked: ClientRequest, blob: OpenedBlob, client: ClientSocket, multipart: Multipart
    ) -> None:
        """Several ranges. After one that had to be cut the client is gone, and so is the rest of the answer."""
        for number, part in enumerate(multipart.parts):
            await client.send_text(multipart.head(number))
            await self._send_body(asked, blob, client, part)
        await client.send_text(multipart.end)

    async def _send_body(self, asked: ClientRequest, blob: OpenedBlob, client: ClientSocket, part: Part) -> None:
        assert part.end is not None
        reached, end = part.start, part.end
        blob.begin(reached)
        origin, access = "store" if blob.stored else "swarm", access_of(asked.http)

        def sent(count: int) -> None:
            nonlocal reached
            reached += count
            self._context.metrics.sent(origin, count)
            access.sent(origin, count)

        try:
            while reached < end:
                available = min(end, await _available(asked, blob, reached))
                if blob.handle.checked_every_time:
                    await self._checked.send(client, blob.handle, reached, available, sent)
                    continue
                if blob.handle.fresh and blob.size_bytes <= AT_ONCE_MAX_BYTES:
                    sent(client.send_at_once(blob.handle.fileno(), reached, available - reached))
                await client.send_file(blob.handle.fileno(), reached, available - reached, sent)
        except DigestMismatch as error:
            _log.error("blob_mismatch digest=%s %s", asked.blob.digest.short, error)
            client.cut()
        except (BlobFailed, LocalError) as error:
            if blob.wrong:  # voided while its bytes were leaving: the file was cut under them
                _log.error("blob_mismatch digest=%s %s", asked.blob.digest.short, error)
                client.cut()
                return
            _log.warning("blob_continued_upstream digest=%s at=%d %s", asked.blob.digest.short, reached, error)
            rest = Part(206, reached, end, blob.size_bytes)
            await self._passthrough.go_on(asked, client, blob, rest, from_start=part.start == 0)


async def _first_byte(asked: ClientRequest, blob: OpenedBlob, headers_by: float) -> None:
    """Wait until something can be sent: a failure can only be answered before the headers. Raises BlobFailed.

    A slow origin is waited for no longer than clients wait for headers. Raises TooManyRanges, too.
    """
    part = select(asked_range(asked.http, asked.blob.digest), blob.size_bytes)[0]
    if part.end is None or part.start >= part.end:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(headers_by):
            await _available(asked, blob, part.start)


async def _available(asked: ClientRequest, blob: OpenedBlob, offset: int) -> int:
    available = blob.available(offset)
    if available > offset:
        return available
    waiting = asyncio.ensure_future(blob.wait_available(offset))
    return await asked.wait_for(waiting, waiting.cancel)


def _refusal(error: LayercastError, asked: ClientRequest | None) -> Refusal:
    if isinstance(error, HostRefused):
        return Refusal(403, "DENIED", str(error))
    if isinstance(error, ProxyLoop):
        return Refusal(508, "UNSUPPORTED", str(error))
    return refusal_for(error, asked.registry.route if asked is not None else None)
