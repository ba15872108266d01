"""One request of a client: what it asks for, which upstream that may come from, and whether the client still waits.

What may be *given* to a client is the origin's to say, each time; here is only whom we ask at all. No bytes of a body.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from peer.proxy.client_socket import ClientGone
from proto.errors import RemoteError
from proto.oci.routes import HOP_HEADER, BlobRoute, RegistryRequest, parse_request
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

T = TypeVar("T")


class ProxyLoop(RemoteError):
    """The request has already been through a proxy of ours: following it would never end."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request that was understood, and the upstream that it may go to."""

    http: web.Request
    registry: RegistryRequest
    upstream: UpstreamConfig

    @property
    def blob(self) -> BlobRoute:
        """Which blob; of a request for one."""
        assert isinstance(self.registry.route, BlobRoute)
        return self.registry.route

    @property
    def source(self) -> Source:
        """From where that blob may be asked."""
        return Source(self.upstream.host, self.blob.repository)

    @property
    def hung_up(self) -> bool:
        """Whether the client has closed its connection."""
        return self.http.transport is None or self.http.transport.is_closing()

    async def wait_for(
        self,
        work: asyncio.Future[T],
        stop: Callable[[], object],
        *,
        check_s: float,
        discard: Callable[[T], object] | None = None,
    ) -> T:
        """The result of `work`. When the client hangs up, or this wait is cancelled, `stop` is called to end the work.

        Never returns while the work still runs: it may be using the client's socket. A result that comes too late goes
        to `discard`. Raises ClientGone, and what the work raises.
        """
        gone = False
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=check_s)
                if not gone and not work.done() and self.hung_up:
                    gone = True
                    stop()
        except asyncio.CancelledError:
            stop()
            await asyncio.wait({work})
            _drop(work, discard)
            raise
        if gone:
            _drop(work, discard)
            raise ClientGone("client hung up")
        return work.result()


def _drop(work: asyncio.Future[T], discard: Callable[[T], object] | None) -> None:
    if not work.cancelled() and work.exception() is None and discard is not None:
        discard(work.result())


def understand(http: web.Request, upstreams: UpstreamTable) -> ClientRequest:
    """Read a request's target (path and query as sent) and find its upstream in the allow-list.

    Raises NameInvalid, DigestInvalid, PathUnknown, UpstreamNotAllowed or ProxyLoop.
    """
    if HOP_HEADER in http.headers:
        raise ProxyLoop("this request came through Layercast already: an upstream leads back to a mirror of ours")
    path, _, query = http.raw_path.partition("?")
    request = parse_request(path, query, upstreams.default.host)
    return ClientRequest(http, request, upstreams.lookup(request.upstream))
