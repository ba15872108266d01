"""A registry as an origin: tokens, redirects, ranges and refusals of the distribution API, over HTTP.

It never sends a credential to another server than the one it was given for. What it shares between registries is in
RegistryClients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.addresses import upstream_endpoint
from peer.registry.base import ANYONE
from peer.registry.blob_body import HttpBody, http_body
from peer.registry.client import OriginHttp
from peer.registry.redirects import REDIRECT_STATUSES, REDIRECTS_MAX, lines_for, redirect_target, url_target
from peer.registry.relayed import RelayClient
from peer.registry.retry import retry_after_s
from peer.registry.tokens import AnonymousTokens
from proto.errors import UpstreamError, UpstreamKind
from proto.oci.ranges import format_range
from proto.oci.routes import HOP_HEADER, BlobRoute
from proto.oci.www_authenticate import bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import CIMultiDict

    from peer.registry.addresses import Endpoint
    from peer.registry.base import Caller, OriginAnswer
    from peer.registry.connection import Exchange
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.routes import RegistryRequest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

TOKEN_ANSWER_BYTES_MAX: Final = 256 * 1024
_STATUS_KINDS: Final = {
    401: UpstreamKind.DENIED,
    403: UpstreamKind.DENIED,
    404: UpstreamKind.UNKNOWN,
    410: UpstreamKind.UNKNOWN,
    416: UpstreamKind.CONTENT,
    429: UpstreamKind.RATE_LIMITED,
    451: UpstreamKind.DENIED,
}


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and for whom. If the caller has no credential, an anonymous token for `repository` is sent."""

    method: str
    target: str
    repository: str
    caller: Caller
    cancel: Cancellation
    lines: tuple[tuple[str, str], ...] = ()
    follow: bool = True


class RegistryClients:
    """What all registries share: connections, anonymous tokens, counters. Safe to use from many threads."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        on_request: Callable[[str], None],
        user_agent: str,
        http: OriginHttp | None = None,
    ) -> None:
        """See peer.registry.origins.Origins."""
        self.upstreams = upstreams
        self.on_request = on_request
        self.http = http or OriginHttp()
        self.tokens = AnonymousTokens(self._fetch_token)
        self.lines = (
            ("User-Agent", user_agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            (HOP_HEADER, "1"),
        )
        self.relayed = RelayClient(upstreams, on_request, http)

    def origin(self, upstream: UpstreamConfig) -> RegistryOrigin:
        """One registry."""
        return RegistryOrigin(upstream, self)

    def close(self) -> None:
        """Close idle connections."""
        self.relayed.close()
        self.http.close()

    def ask(
        self,
        upstream: UpstreamConfig,
        endpoint: Endpoint,
        request: _Request,
        authorization: str | None,
        *,
        counted_as: str = "",
    ) -> Exchange:
        """One request with its redirects followed; any status is returned. Raises UpstreamError and FetchCancelled."""
        self.on_request(counted_as or request.method)
        target, lines = request.target, [*self.lines, *request.lines]
        if authorization is not None:
            lines.append(("Authorization", authorization))
        for _ in range(REDIRECTS_MAX + 1):
            exchange = self.http.send(endpoint, request.method, target, lines, request.cancel)
            location = exchange.header("Location")
            if not request.follow or exchange.status not in REDIRECT_STATUSES or location is None:
                return exchange
            exchange.drain()
            leads_to, target = redirect_target(
                self.upstreams(), upstream, endpoint, target, location, anonymous=request.caller.anonymous
            )
            endpoint, lines = leads_to, lines_for(leads_to, endpoint, lines)
        raise UpstreamError(f"origin {upstream.host}: more than {REDIRECTS_MAX} redirects", UpstreamKind.UNAVAILABLE)

    def _fetch_token(self, upstream: UpstreamConfig, url: str, cancel: Cancellation) -> bytes:
        """GET a token service's URL without any credential."""
        endpoint, target = url_target(self.upstreams(), upstream, url, anonymous=True)
        request = _Request("GET", target, "", ANYONE, cancel)
        exchange = self.ask(upstream, endpoint, request, None, counted_as="TOKEN")
        try:
            if exchange.status == 200:
                return exchange.read_all(TOKEN_ANSWER_BYTES_MAX)
        finally:
            exchange.close()
        raise _status_error(f"token service of {upstream.host}", exchange)


class RegistryOrigin:
    """See peer.registry.base.Origin."""

    def __init__(self, upstream: UpstreamConfig, clients: RegistryClients) -> None:
        self.host = upstream.host
        self._upstream = upstream
        self._clients = clients

    def open_range(
        self, repository: str, digest: Digest, start: int, end: int | None, caller: Caller, cancel: Cancellation
    ) -> HttpBody:
        lines = (("Range", format_range(start, end)),) if start or end is not None else ()
        exchange = self._ask(self._blob_request("GET", repository, digest, caller, cancel, lines))
        if exchange.status not in (200, 206, 416):
            raise self._refusal(repository, digest, exchange)
        try:
            return http_body(exchange, start, end)
        except BaseException:
            exchange.close()
            raise

    def stat(self, repository: str, digest: Digest, caller: Caller, cancel: Cancellation) -> int | None:
        """See Origin.

        A redirect counts only if what it leads to gives the blob without any credential. Where HEAD is not allowed, a
        one-byte GET decides.
        """
        exchange = self._ask(self._blob_request("HEAD", repository, digest, caller, cancel))
        if exchange.status in REDIRECT_STATUSES or exchange.status == 405:
            exchange.drain()
            one_byte = (("Range", format_range(0, 1)),)
            exchange = self._ask(self._blob_request("GET", repository, digest, caller, cancel, one_byte))
        if exchange.status == 200:
            exchange.close()
            return exchange.content_length
        if exchange.status not in (206, 416):
            raise self._refusal(repository, digest, exchange)
        try:
            with http_body(exchange, 0, 1) as body:
                return body.size_bytes
        finally:
            exchange.close()

    async def manifest(self, method: str, request: RegistryRequest, headers: CIMultiDict[str]) -> OriginAnswer:
        wants_body = not isinstance(request.route, BlobRoute)
        return await self._clients.relayed.ask(
            method, self._upstream, request.origin_target, headers, wants_body=wants_body
        )

    def _blob_request(
        self,
        method: str,
        repository: str,
        digest: Digest,
        caller: Caller,
        cancel: Cancellation,
        lines: tuple[tuple[str, str], ...] = (),
    ) -> _Request:
        path = BlobRoute(repository, digest).path
        return _Request(method, path, repository, caller, cancel, lines, follow=method == "GET")

    def _ask(self, request: _Request) -> Exchange:
        """One request. A challenge is answered with an anonymous token, unless the caller has a credential."""
        upstream, tokens, caller = self._upstream, self._clients.tokens, request.caller
        endpoint = upstream_endpoint(upstream, anonymous=caller.anonymous)
        if caller.authorization is not None:
            return self._clients.ask(upstream, endpoint, request, caller.authorization)
        token = tokens.remembered(upstream, request.repository)
        exchange = self._clients.ask(upstream, endpoint, request, _bearer(token))
        challenge = bearer_challenge(exchange.headers("WWW-Authenticate"))
        if exchange.status != 401 or exchange.endpoint != endpoint or challenge is None:
            return exchange
        exchange.drain()
        token = tokens.answer(upstream, request.repository, challenge, token, request.cancel)
        return self._clients.ask(upstream, endpoint, request, _bearer(token))

    def _refusal(self, repository: str, digest: Digest, exchange: Exchange) -> UpstreamError:
        exchange.drain()
        return _status_error(f"origin {self.host}: blob {digest.short} of {repository}", exchange)


def _bearer(token: str | None) -> str | None:
    return f"Bearer {token}" if token is not None else None


def _status_error(what: str, exchange: Exchange) -> UpstreamError:
    status = exchange.status
    kind = _STATUS_KINDS.get(status, UpstreamKind.UNAVAILABLE)
    delay_s = retry_after_s(exchange.header("Retry-After")) if status in (429, 503) else None
    return UpstreamError(
        f"{what}: {exchange.endpoint.host} answered {status}", kind, status=status, retry_after_s=delay_s
    )
