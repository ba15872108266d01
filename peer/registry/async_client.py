"""HTTP to origins on the event loop, for what is small. Each answer is the origin's own, unread and not decompressed.

Redirects are followed as far as peer.registry.redirects allows. If the target of a redirect refuses, the answer is the
redirect itself, which the client may follow with a login of its own.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from peer.registry.addresses import is_private_literal, is_public_address, upstream_endpoint
from peer.registry.connection import tls_context
from peer.registry.redirects import REDIRECT_STATUSES, REDIRECTS_MAX, lines_for, redirect_target
from proto.errors import UpstreamError, UpstreamKind
from proto.oci.routes import HEADER_LIMIT_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from multidict import CIMultiDict

    from peer.registry.addresses import Endpoint
    from peer.registry.redirects import Lines
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

_CONNECTIONS_MAX: Final = 256
# No header is added that the client did not send.
_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only. The address that was checked is the one that is connected to."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The name's public addresses. Raises OSError where it has none."""
        found = [r for r in await self._system.resolve(host, port, family) if is_public_address(r["host"])]
        if not found:
            raise OSError(f"{host} has no public address and is not configured")
        return found

    async def close(self) -> None:
        """Nothing is kept open."""


class HttpAnswer:
    """See peer.registry.base.OriginAnswer."""

    def __init__(self, host: str, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self._host = host
        self._response = response

    async def read(self) -> bytes:
        """See OriginAnswer. Once read to its end, the connection can be used again."""
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(f"{self._host} broke its answer off", UpstreamKind.UNAVAILABLE) from error
        if not chunk:
            self._response.release()
        return chunk

    def close(self) -> None:
        """See OriginAnswer."""
        self._response.close()


class AsyncClient:
    """Connections to all registries. Made and closed on the event loop it serves."""

    def __init__(self, upstreams: Callable[[], UpstreamTable], on_request: Callable[[str], None]) -> None:
        """`on_request` is told the method of each request that leaves for a registry."""
        self._upstreams = upstreams
        self._on_request = on_request
        self._trusted = _session(None)
        self._public = _session(PublicResolver())
        self._contexts: dict[tuple[Path | None, ...], ssl.SSLContext] = {}

    async def close(self) -> None:
        """End all connections."""
        await self._trusted.close()
        await self._public.close()

    async def ask(self, method: str, upstream: UpstreamConfig, target: str, headers: CIMultiDict[str]) -> HttpAnswer:
        """The registry's answer to this request; the caller closes it. Raises UpstreamError."""
        endpoint, lines = upstream_endpoint(upstream, anonymous=False), list(headers.items())
        first = answer = await self._send(method, endpoint, target, lines)
        try:
            for _ in range(REDIRECTS_MAX):
                location = answer.headers.get("Location")
                if answer.status not in REDIRECT_STATUSES or location is None:
                    break
                leads_to, target = redirect_target(
                    self._upstreams(), upstream, endpoint, target, location, anonymous=False
                )
                endpoint, lines = leads_to, lines_for(leads_to, endpoint, lines)
                if answer is not first:
                    answer.close()
                answer = await self._send(method, endpoint, target, lines)
        except UpstreamError:
            return HttpAnswer(upstream.host, first)  # the client may get there by itself
        except BaseException:
            first.close()
            raise
        if answer is first:
            return HttpAnswer(upstream.host, first)
        if answer.status >= 400 or answer.status in REDIRECT_STATUSES:
            answer.close()
            return HttpAnswer(upstream.host, first)
        first.release()
        return HttpAnswer(upstream.host, answer)

    async def _send(self, method: str, endpoint: Endpoint, target: str, lines: Lines) -> aiohttp.ClientResponse:
        session = self._trusted if endpoint.trusted or endpoint.egress_proxy else self._public
        if session is self._public and is_private_literal(endpoint.host):
            raise UpstreamError(f"{endpoint.host} is not public and not configured", UpstreamKind.DENIED)
        self._on_request(method)
        try:
            return await session.request(
                method,
                URL(f"{endpoint.scheme}://{endpoint.authority}{target}", encoded=True),
                headers=lines,
                allow_redirects=False,
                ssl=await self._context(endpoint) if endpoint.scheme == "https" else True,
                proxy=endpoint.egress_proxy,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The class says enough. The text of some errors repeats a URL with its signed query.
            raise UpstreamError(
                f"{endpoint.authority} cannot be asked: {type(error).__name__}", UpstreamKind.UNAVAILABLE
            ) from error

    async def _context(self, endpoint: Endpoint) -> ssl.SSLContext:
        key = (endpoint.ca_file, endpoint.client_cert, endpoint.client_key)
        if key not in self._contexts:
            self._contexts[key] = await asyncio.to_thread(tls_context, endpoint)
        return self._contexts[key]


def _session(resolver: AbstractResolver | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, resolver=resolver or ThreadedResolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=_NOT_ADDED,
        max_line_size=HEADER_LIMIT_BYTES,
        max_field_size=HEADER_LIMIT_BYTES,
        # The caller limits the time of the whole exchange.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
    )
