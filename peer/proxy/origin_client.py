"""Asks an origin for what is small: status, manifests, tags, HEADs. On the event loop; blobs do not come this way.

Each answer is the origin's own, unread and not decompressed. Redirects are followed as the transport's address
guard allows, without credentials on another server; an answer that a redirect's target refuses is the redirect
itself, which the client may follow with a login of its own.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from peer.proxy.headers import without_credentials
from peer.registry.addresses import is_public_address, named_endpoint, upstream_endpoint
from peer.registry.connection import tls_context
from proto.errors import NameInvalid, UpstreamError, UpstreamKind
from proto.oci.upstreams import normalise_upstream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from multidict import CIMultiDict

    from peer.registry.addresses import Endpoint
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

# As long as the longest header line that registries and their tokens are known to need, with room.
HEADER_LIMIT_BYTES: Final = 64 * 1024
_REDIRECTS_MAX: Final = 5
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_CONNECTIONS_MAX: Final = 256
# Nothing is added that the client did not send.
_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class PublicResolver(AbstractResolver):
    """Names to addresses of the public Internet alone; what is connected to is what was checked."""

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


class OriginClient:
    """Connections to all origins. Made and closed on the event loop it serves."""

    def __init__(self, upstreams: Callable[[], UpstreamTable], on_request: Callable[[str], None]) -> None:
        """`on_request` is told the method of each request that leaves for an origin."""
        self._upstreams = upstreams
        self._on_request = on_request
        self._trusted = _session(None)
        self._public = _session(PublicResolver())
        self._contexts: dict[tuple[Path | None, ...], ssl.SSLContext] = {}

    async def close(self) -> None:
        """End all connections."""
        await self._trusted.close()
        await self._public.close()

    async def ask(
        self, method: str, upstream: UpstreamConfig, target: str, headers: CIMultiDict[str]
    ) -> aiohttp.ClientResponse:
        """The origin's answer to this request; the caller releases it. Raises UpstreamError."""
        endpoint = upstream_endpoint(upstream, anonymous=False)
        first = answer = await self._send(method, endpoint, target, headers)
        try:
            for _ in range(_REDIRECTS_MAX):
                leads_to = self._redirect(upstream, answer)
                if leads_to is None:
                    break
                if not leads_to[0].same_server(endpoint):
                    headers = without_credentials(headers)
                endpoint, target = leads_to
                if answer is not first:
                    answer.close()
                answer = await self._send(method, endpoint, target, headers)
        except UpstreamError:
            return first  # the client may get there by itself
        except BaseException:
            first.close()
            raise
        if answer is first:
            return first
        if answer.status >= 400 or answer.status in _REDIRECT_STATUSES:
            answer.close()
            return first
        first.release()
        return answer

    def _redirect(self, upstream: UpstreamConfig, answer: aiohttp.ClientResponse) -> tuple[Endpoint, str] | None:
        """Where an answer leads and the target to ask there, byte for byte; None for an answer to be handed on."""
        location = answer.headers.get("Location")
        if answer.status not in _REDIRECT_STATUSES or location is None:
            return None
        try:
            parts = urlsplit(urljoin(str(answer.url), location))
            normalise_upstream(parts.netloc)  # refuses what is no authority; the name itself stays as it is
            found = named_endpoint(self._upstreams(), upstream, parts.scheme, parts.netloc.lower(), anonymous=False)
        except (NameInvalid, UpstreamError, ValueError):
            return None
        target = parts.path or "/"
        return found, f"{target}?{parts.query}" if parts.query else target

    async def _send(
        self, method: str, endpoint: Endpoint, target: str, headers: CIMultiDict[str]
    ) -> aiohttp.ClientResponse:
        session = self._trusted if endpoint.trusted or endpoint.egress_proxy else self._public
        if session is self._public and _is_private_literal(endpoint.host):
            raise UpstreamError(f"{endpoint.host} is not public and not configured", UpstreamKind.DENIED)
        self._on_request(method)
        try:
            return await session.request(
                method,
                URL(f"{endpoint.scheme}://{endpoint.authority}{target}", encoded=True),
                headers=headers,
                allow_redirects=False,
                ssl=await self._context(endpoint) if endpoint.scheme == "https" else True,
                proxy=endpoint.egress_proxy,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The class says enough, and the text of some errors repeats a URL with its query.
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
        # The whole exchange has its limit where it is asked for.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
    )


def _is_private_literal(host: str) -> bool:
    try:
        return not is_public_address(host)
    except ValueError:
        return False
