"""Reading blobs from registries: tokens, redirects, ranges, refusals. Blocking, used from threads.

Both the supernode and a peer that goes upstream by itself read through this. One call is one attempt: retry,
resume and the choice among sources are the caller's. It stores nothing, checks no digest, and never sends a
credential to another server than the one it was given for.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from peer.registry.addresses import default_port, named_endpoint, upstream_endpoint
from peer.registry.blob_response import BlobResponse, blob_response
from peer.registry.client import OriginHttp
from peer.registry.retry_after import retry_after_s
from peer.registry.tokens import AnonymousTokens
from peer.transport.cancellation import Cancellation
from proto.errors import NameInvalid, UpstreamError, UpstreamKind
from proto.oci.ranges import format_range
from proto.oci.routes import HOP_HEADER, BlobRoute
from proto.oci.upstreams import normalise_authority
from proto.oci.www_authenticate import bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.addresses import Endpoint
    from peer.registry.connection import Exchange
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

REDIRECTS_MAX = 5
TOKEN_ANSWER_BYTES_MAX = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL = re.compile(r"(https?)://([^/?#]+)([^#]*)", re.IGNORECASE)
_STATUS_KINDS = {
    401: UpstreamKind.DENIED,
    403: UpstreamKind.DENIED,
    404: UpstreamKind.UNKNOWN,
    410: UpstreamKind.UNKNOWN,
    416: UpstreamKind.CONTENT,
    429: UpstreamKind.RATE_LIMITED,
    451: UpstreamKind.DENIED,
}


@dataclass(frozen=True, slots=True)
class BlobAccess:
    """The origin's answer to "may this caller read that blob": `size_bytes` where it allowed and told."""

    allowed: bool
    size_bytes: int | None
    status: int


@dataclass(frozen=True, slots=True)
class _Caller:
    """On whose behalf a request is made. `authorization` None: an anonymous token where one is asked for."""

    upstream: UpstreamConfig
    repository: str
    authorization: str | None
    anonymous: bool
    cancel: Cancellation


class RegistryReader:
    """Reads from the registries of one table, which may change. Safe to use from many threads."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        http: OriginHttp | None = None,
        *,
        on_request: Callable[[str], None] = lambda method: None,
        clock: Callable[[], float] = time.monotonic,
        user_agent: str = "layercast",
    ) -> None:
        """`on_request` is called from any thread with GET, HEAD or TOKEN for each request that is made.

        Following a redirect is not a request of its own.
        """
        # Cancelled by close(): what was asked without a cancellation of its own ends with it.
        self.closing = Cancellation()
        self._upstreams = upstreams
        self._on_request = on_request
        self._http = http or OriginHttp()
        self._tokens = AnonymousTokens(self._fetch_token, clock)
        self._headers = [
            ("User-Agent", user_agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            (HOP_HEADER, "1"),
        ]

    def close(self) -> None:
        """End what runs without a cancellation of its own, and close idle connections. Nothing can be asked after."""
        self.closing.cancel()
        self._http.close()

    def open_blob(
        self,
        upstream: UpstreamConfig,
        repository: str,
        digest: Digest,
        *,
        start: int = 0,
        end: int | None = None,
        authorization: str | None = None,
        cancel: Cancellation | None = None,
    ) -> BlobResponse:
        """Ask for bytes [start, end) of a blob (end None: to its end); (0, None) is asked without a Range.

        The response may be the whole blob (200) where a range was asked for; `BlobResponse.start` tells. The
        caller closes it. Raises UpstreamError of every kind and FetchCancelled. A 416 is raised as `content` with
        status 416, or returned as an empty response where it says that the blob is empty.
        """
        caller = _Caller(upstream, repository, authorization, False, cancel or self.closing)
        extra = [("Range", format_range(start, end))] if start or end is not None else []
        exchange = self._ask(caller, "GET", BlobRoute(repository, digest).path, extra)
        if exchange.status not in (200, 206, 416):
            raise self._refusal(upstream, repository, digest, exchange)
        try:
            return blob_response(exchange, start, end)
        except BaseException:
            exchange.close()
            raise

    def head_blob(
        self,
        upstream: UpstreamConfig,
        repository: str,
        digest: Digest,
        *,
        authorization: str | None = None,
        size_bytes: int | None = None,
        anonymous: bool = False,
        cancel: Cancellation | None = None,
    ) -> BlobAccess:
        """Ask the origin whether this caller may read the blob, and its size. Reads no byte of a body.

        A redirect counts only if what it leads to gives the blob (of `size_bytes`, where known) without any
        credential; where HEAD is not allowed, a one-byte GET decides. Raises UpstreamError (unavailable,
        rate_limited, or denied for a redirect that is not followed) and FetchCancelled.
        """
        caller = _Caller(upstream, repository, authorization, anonymous, cancel or self.closing)
        path = BlobRoute(repository, digest).path
        exchange = self._ask(caller, "HEAD", path, [], follow=False)
        if exchange.status in _REDIRECTS or exchange.status == 405:
            exchange.drain()
            exchange = self._ask(caller, "GET", path, [("Range", format_range(0, 1))])
        status = exchange.status
        if status == 200:
            size = exchange.content_length
            exchange.close()
            return BlobAccess(size_bytes in (None, size) or size is None, size, status)
        if status in (206, 416):
            try:
                with blob_response(exchange, 0, 1) as response:
                    size = response.size_bytes
            except UpstreamError:
                exchange.close()
                return BlobAccess(False, None, status)
            return BlobAccess(size_bytes in (None, size), size, status)
        if _STATUS_KINDS.get(status) in (UpstreamKind.DENIED, UpstreamKind.UNKNOWN):
            exchange.drain()
            return BlobAccess(False, None, status)
        raise self._refusal(upstream, repository, digest, exchange)

    def is_public(
        self,
        upstream: UpstreamConfig,
        repository: str,
        digest: Digest,
        *,
        size_bytes: int | None = None,
        cancel: Cancellation | None = None,
    ) -> BlobAccess:
        """head_blob() without any credential but an anonymous token, and without client certificates."""
        return self.head_blob(upstream, repository, digest, size_bytes=size_bytes, anonymous=True, cancel=cancel)

    def _ask(
        self, caller: _Caller, method: str, path: str, extra: list[tuple[str, str]], *, follow: bool = True
    ) -> Exchange:
        """One request with its challenge answered and its redirects followed; any status is returned."""
        endpoint = upstream_endpoint(caller.upstream, anonymous=caller.anonymous)
        token = None
        if caller.authorization is None:
            token = self._tokens.remembered(caller.upstream, caller.repository)
        authorization = f"Bearer {token}" if token is not None else caller.authorization
        exchange = self._follow(caller, endpoint, method, path, extra, authorization, follow=follow, counted_as=method)
        if exchange.status != 401 or caller.authorization is not None or exchange.endpoint != endpoint:
            return exchange
        challenge = bearer_challenge(exchange.headers("WWW-Authenticate"))
        if challenge is None:
            return exchange
        exchange.drain()
        token = self._tokens.answer(caller.upstream, caller.repository, challenge, token, caller.cancel)
        return self._follow(caller, endpoint, method, path, extra, f"Bearer {token}", follow=follow, counted_as=method)

    def _follow(
        self,
        caller: _Caller,
        endpoint: Endpoint,
        method: str,
        target: str,
        extra: list[tuple[str, str]],
        authorization: str | None,
        *,
        follow: bool,
        counted_as: str,
    ) -> Exchange:
        self._on_request(counted_as)
        for _ in range(REDIRECTS_MAX + 1):
            credential = [("Authorization", authorization)] if authorization is not None else []
            exchange = self._http.send(endpoint, method, target, [*self._headers, *extra, *credential], caller.cancel)
            location = exchange.header("Location")
            if not follow or exchange.status not in _REDIRECTS or location is None:
                return exchange
            exchange.drain()
            came_from = endpoint
            endpoint, target = self._redirect_target(caller, endpoint, target, location)
            if not endpoint.same_server(came_from):
                authorization = None  # and it does not come back, wherever the next redirect leads
        raise UpstreamError(
            f"origin {caller.upstream.host}: more than {REDIRECTS_MAX} redirects", UpstreamKind.UNAVAILABLE
        )

    def _redirect_target(self, caller: _Caller, endpoint: Endpoint, target: str, location: str) -> tuple[Endpoint, str]:
        """Where a Location leads. Its path and query stay byte for byte: they may be signed."""
        if location.startswith("/") and not location.startswith("//"):
            return endpoint, location.partition("#")[0]
        if _URL.fullmatch(location.partition("#")[0]) is None:
            try:
                location = urljoin(f"{endpoint.scheme}://{endpoint.authority}{target}", location)
            except ValueError as error:
                raise UpstreamError(
                    f"origin {caller.upstream.host} redirects to what is no URL", UpstreamKind.CONTENT
                ) from error
        return self._named(caller.upstream, location, anonymous=caller.anonymous)

    def _named(self, upstream: UpstreamConfig, url: str, *, anonymous: bool) -> tuple[Endpoint, str]:
        match = _URL.match(url)
        # The message leaves the URL out: a redirect's query is a credential.
        problem = UpstreamError(f"origin {upstream.host} named a URL that is not http(s)", UpstreamKind.CONTENT)
        if match is None or not url.isascii() or not url.isprintable() or " " in url:
            raise problem
        scheme = match[1].lower()
        try:
            authority = normalise_authority(match[2])
        except NameInvalid as error:
            raise problem from error
        target = match[3] if match[3].startswith("/") else f"/{match[3]}"
        authority = authority.removesuffix(f":{default_port(scheme)}")
        return named_endpoint(self._upstreams(), upstream, scheme, authority, anonymous=anonymous), target

    def _fetch_token(self, upstream: UpstreamConfig, url: str, cancel: Cancellation) -> bytes:
        """GET a token service's URL without any credential."""
        endpoint, target = self._named(upstream, url, anonymous=True)
        caller = _Caller(upstream, "", None, True, cancel)
        exchange = self._follow(caller, endpoint, "GET", target, [], None, follow=True, counted_as="TOKEN")
        try:
            if exchange.status == 200:
                return exchange.read_all(TOKEN_ANSWER_BYTES_MAX)
        finally:
            exchange.close()
        raise _status_error(f"token service of {upstream.host}", exchange)

    def _refusal(self, upstream: UpstreamConfig, repository: str, digest: Digest, exchange: Exchange) -> UpstreamError:
        exchange.drain()
        return _status_error(f"origin {upstream.host}: blob {digest.short} of {repository}", exchange)


def _status_error(what: str, exchange: Exchange) -> UpstreamError:
    status = exchange.status
    kind = _STATUS_KINDS.get(status, UpstreamKind.UNAVAILABLE)
    delay_s = retry_after_s(exchange.header("Retry-After")) if status in (429, 503) else None
    return UpstreamError(
        f"{what}: {exchange.endpoint.host} answered {status}", kind, status=status, retry_after_s=delay_s
    )
