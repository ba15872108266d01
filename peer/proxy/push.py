"""Pushes pass through: what a client sends to its registry, with that client's own credential. Nothing is stored.

The origin alone decides. A body goes on as it comes, and no faster than the origin takes it: the web server reads it,
on the event loop, because it alone knows where its chunks end; a thread fetches it from there and sends it
(docs/decisions/push-passes-through.md).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from aiohttp import web

from peer.proxy.client_socket import STALL_LIMIT_S, ClientGone
from peer.proxy.heads import for_client, for_origin, method_refused, refused
from peer.registry.queues import Work
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.oci.registry_errors import Refusal
from proto.oci.routes import BlobRoute, ForeignRoute, ManifestRoute, OtherRoute, UploadRoute
from proto.oci.uploads import origin_query, rewrite_location

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from peer.proxy.client_request import ClientRequest
    from peer.registry.base import OriginAnswer

_log = logging.getLogger(__name__)

METHODS: Final = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_OF_ROUTES: Final = {
    UploadRoute: METHODS,
    ManifestRoute: frozenset({"PUT", "DELETE"}),
    OtherRoute: frozenset({"PUT", "DELETE"}),
    BlobRoute: frozenset({"DELETE"}),
    ForeignRoute: METHODS,
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


async def wait_for_origin(_: web.Request) -> None:
    """In place of the web server's own answer to `Expect`: the origin is asked first, see ClientBody.proceed."""


def is_write(asked: ClientRequest) -> bool:
    """Whether a request is this module's to answer. The state of an upload is its registry's to tell, each time."""
    return asked.http.method in METHODS or isinstance(asked.registry.route, UploadRoute)


def refusal_of(asked: ClientRequest) -> Refusal | None:
    """Why a request is not passed on, if it is not."""
    method, route = asked.http.method, asked.registry.route
    if method in METHODS and method not in _OF_ROUTES.get(type(route), frozenset()):
        return method_refused(method)
    # Browsers name the page that writes, and no client of a registry is one.
    if method in METHODS and "Origin" in asked.http.headers:
        return Refusal(403, "DENIED", "a web page may not write to a registry through this mirror")
    # A login that is asked for by POST is no push. An upload at a path that only its registry understands is one.
    is_login = isinstance(route, ForeignRoute) and method == "POST" and "/uploads" not in unquote(route.path)
    if not asked.context.push_allowed() and not is_login:
        return Refusal(403, "DENIED", "this mirror takes no pushes (push = false): push to the registry itself")
    return None


async def pass_on(asked: ClientRequest) -> web.StreamResponse:
    """The origin's answer to a write. Raises UpstreamError, and ClientGone."""
    refusal = refusal_of(asked)
    if refusal is not None:
        return _closing(asked, refused(refusal, asked.registry))
    cancel = Cancellation()
    body = ClientBody(asked.http, asked.context.metrics.pushed) if asked.http.body_exists else None
    request = dataclasses.replace(asked.registry, query=origin_query(asked.registry))
    origin = asked.context.origins.of(asked.upstream)
    work = asked.context.origins.queues.submit(
        Work.PUSH,
        asked.upstream.host,
        origin.write,
        asked.http.method,
        request,
        for_origin(asked.http.headers),
        body,
        cancel,
    )

    def stop() -> None:
        cancel.cancel()
        if body is not None:
            body.stop()

    try:
        answer = await asked.wait_for(asyncio.wrap_future(work), stop)
    except FetchCancelled as error:
        raise ClientGone("client hung up while it sent") from error
    return _closing(asked, _in_its_words(asked, answer))


def _in_its_words(asked: ClientRequest, answer: OriginAnswer) -> web.Response:
    headers = for_client(asked.registry, answer.status, answer.headers, actions="pull,push")
    if "Location" in headers:
        headers["Location"] = rewrite_location(headers["Location"], asked.registry, asked.upstream.url)
    return web.Response(status=answer.status, reason=answer.reason, body=answer.body, headers=headers)


def _closing(asked: ClientRequest, response: web.Response) -> web.Response:
    """A connection on which a body is still to come, that nobody wants, ends with the answer."""
    if asked.http.body_exists and not asked.http.content.is_eof():
        response.force_close()
    return response


class ClientBody:
    """See peer.registry.base.SentBody. Made on the event loop; `sent` is told the length of what was read."""

    def __init__(self, http: web.Request, sent: Callable[[int], object]) -> None:
        self._http = http
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self._waiting: concurrent.futures.Future[Any] | None = None
        self._stopped = False
        self.length = http.content_length
        self.expects_continue = http.headers.get("Expect", "").lower() == "100-continue"

    def proceed(self) -> None:
        if self.expects_continue:
            self._wait(self._ask())

    def read(self) -> bytes:
        content: bytes = self._wait(self._http.content.readany())
        self._sent(len(content))
        return content

    def stop(self) -> None:
        """On the event loop: wake who waits for more. Idempotent."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _ask(self) -> None:
        writer = self._http.writer
        await writer.write(_CONTINUE)
        writer.output_size = 0  # by which the web server knows whether an answer has begun

    def _wait(self, step: Coroutine[Any, Any, Any]) -> Any:
        """In a thread: the result of a step on the event loop. Raises FetchCancelled if there is none."""
        self._waiting = asyncio.run_coroutine_threadsafe(step, self._loop)
        try:
            if self._stopped:
                raise FetchCancelled
            return self._waiting.result(STALL_LIMIT_S)
        except (concurrent.futures.CancelledError, TimeoutError, OSError, web.RequestPayloadError) as error:
            raise FetchCancelled from error
        finally:
            self._waiting.cancel()
