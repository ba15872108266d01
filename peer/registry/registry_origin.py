"""A registry as an origin: what is asked of it by the distribution API, with whose credential, and ranges and refusals.

Redirects, tokens and connections are in registry_clients, what an answer says in registry_answers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from multidict import CIMultiDict

from peer.registry.addresses import upstream_endpoint
from peer.registry.base import OriginAnswer, OriginRefused
from peer.registry.blob_body import HttpBody, http_body, is_encoded
from peer.registry.redirects import url_target
from peer.registry.registry_answers import is_page, length, refusal, refuses_ranges, tags_of_page
from peer.registry.registry_clients import RegistryCall, basic
from peer.registry.relayed import BODY_BYTES_MAX, as_sent
from proto.errors import DigestInvalid, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.ranges import format_range
from proto.oci.routes import BlobRoute, ManifestRoute
from proto.oci.www_authenticate import bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.registry.addresses import Endpoint
    from peer.registry.base import Caller, Login, SentBody
    from peer.registry.exchange import Exchange
    from peer.registry.registry_clients import RegistryClients
    from peer.transport.cancellation import Cancellation
    from proto.oci.routes import RegistryRequest
    from proto.oci.upstreams import UpstreamConfig

# What this process takes of manifests: any, by its name, since some registries take no `*/*` for that.
_MANIFEST_LINES: Final = tuple(
    ("Accept", media_type)
    for media_type in (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.artifact.manifest.v1+json",
    )
)
# Longer than registries take.
MANIFEST_BYTES_MAX: Final = 4 << 20
TAGS_PAGE: Final = 1000
# A tag has 128 characters at most; some registries give all tags as one page.
TAGS_PAGE_BYTES_MAX: Final = 4 << 20
# HEADs that settle it: the blob is there, or the origin wants to be left alone.
_HEAD_SETTLES: Final = frozenset({200, 429, 503})


class RegistryOrigin:
    """See peer.registry.base.Origin."""

    def __init__(self, upstream: UpstreamConfig, clients: RegistryClients) -> None:
        self.host = upstream.host
        self._upstream = upstream
        self._clients = clients

    def open_range(
        self,
        repository: str,
        digest: Digest,
        start: int,
        end: int | None,
        caller: Caller,
        cancel: Cancellation,
        *,
        manifest: bool = False,
    ) -> HttpBody:
        lines = (("Range", format_range(start, end)),) if start or end is not None else ()
        route = _route(repository, digest, manifest=manifest)
        with self._refusals_heeded(repository, digest, caller):
            exchange = self._ask(_request("GET", route, caller, cancel, lines))
            # A part of something else than the blob, or an origin that gives no parts.
            if (exchange.status == 206 and is_encoded(exchange)) or refuses_ranges(exchange, start):
                exchange.close()
                exchange = self._ask(_request("GET", route, caller, cancel))
            if exchange.status not in (200, 206, 416):
                raise self._refusal(repository, digest, exchange)
        try:
            return http_body(exchange, start, end)
        except BaseException:
            exchange.close()
            raise

    def stat(
        self, repository: str, digest: Digest, caller: Caller, cancel: Cancellation, *, manifest: bool = False
    ) -> int | None:
        """See Origin.

        A HEAD is a hint: registries refuse it where they give the blob, or leave out the size. Then a one-byte GET
        decides, as after a redirect, which may be good for GET alone. Of a manifest it would be one that they count.
        Some servers refuse every range with 416: the head of a GET of all tells there.
        """
        route = _route(repository, digest, manifest=manifest)
        with self._refusals_heeded(repository, digest, caller):
            exchange = self._ask(_request("HEAD", route, caller, cancel))
            settled = exchange.status in _HEAD_SETTLES and (exchange.status != 200 or length(exchange) is not None)
            if not settled and not manifest:
                exchange.drain()
                one_byte = (("Range", format_range(0, 1)),)
                exchange = self._ask(_request("GET", route, caller, cancel, one_byte), again=True)
                if refuses_ranges(exchange, 0):
                    exchange.close()
                    exchange = self._ask(_request("GET", route, caller, cancel), again=True)
            if exchange.status not in (200, 206, 416):
                raise self._refusal(repository, digest, exchange)
            if exchange.redirect is not None and is_page(exchange):
                raise self._login_wanted(digest, exchange)
        try:
            if exchange.status == 200 or is_encoded(exchange):
                return length(exchange)
            with http_body(exchange, 0, 1) as body:
                return body.size_bytes
        finally:
            exchange.close()

    def tagged(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> bytes:
        route = ManifestRoute(repository, tag)
        exchange = self._ask(RegistryCall("GET", route.path, repository, caller, cancel, _MANIFEST_LINES))
        try:
            if exchange.status != 200:
                raise refusal(f"origin {self.host}: tag {tag} of {repository}", exchange)
            return exchange.read_all(MANIFEST_BYTES_MAX)
        finally:
            exchange.close()

    def tag_digest(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> Digest:
        """See Origin. By HEAD, which registries do not count as a pull; one that tells no digest is asked for all."""
        route = ManifestRoute(repository, tag)
        with contextlib.closing(self._ask(_request("HEAD", route, caller, cancel))) as exchange:
            if exchange.status not in (200, 405):
                raise refusal(f"origin {self.host}: tag {tag} of {repository}", exchange)
            told = exchange.header("Docker-Content-Digest") if exchange.status == 200 else None
        if told is not None:
            with contextlib.suppress(DigestInvalid):
                return Digest.parse(told)
        return Digest.of(self.tagged(repository, tag, caller, cancel))

    def tags(self, repository: str, most: int, caller: Caller, cancel: Cancellation) -> list[str]:
        """See Origin. Page by page, where a registry gives them so."""
        found: list[str] = []
        query = f"?n={TAGS_PAGE}"
        while True:
            request = RegistryCall("GET", f"/v2/{repository}/tags/list{query}", repository, caller, cancel)
            with contextlib.closing(self._ask(request)) as exchange:
                if exchange.status != 200:
                    raise refusal(f"origin {self.host}: tags of {repository}", exchange)
                has_more = exchange.header("Link") is not None
                page = tags_of_page(exchange.read_all(TAGS_PAGE_BYTES_MAX), self.host)
            found += page
            if not page or not has_more or len(found) >= most:
                return found[:most]
            query = f"?n={TAGS_PAGE}&last={quote(page[-1], safe='')}"

    def write(
        self,
        method: str,
        request: RegistryRequest,
        headers: CIMultiDict[str],
        body: SentBody | None,
        cancel: Cancellation,
    ) -> OriginAnswer:
        endpoint = upstream_endpoint(self._upstream, anonymous=True)
        return self._send(endpoint, method, request.origin_target, headers, body, cancel)

    def ask_realm(
        self, method: str, url: str, headers: CIMultiDict[str], body: SentBody | None, cancel: Cancellation
    ) -> OriginAnswer:
        endpoint, target = url_target(self._clients.upstreams(), self._upstream, url, anonymous=True)
        return self._send(endpoint, method, target, headers, body, cancel, counted_as="TOKEN")

    def _send(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: SentBody | None,
        cancel: Cancellation,
        *,
        counted_as: str = "",
    ) -> OriginAnswer:
        """One request, with a client's own lines, and all of its answer."""
        self._clients.on_request(counted_as or method)
        lines = [*as_sent(headers.items()), *_framing(method, body)]
        with contextlib.closing(self._clients.http.send(endpoint, method, target, lines, cancel, body)) as exchange:
            content = exchange.read_all(BODY_BYTES_MAX)
            answered = CIMultiDict(exchange.lines)
            if content:
                answered["Content-Length"] = str(len(content))
            return OriginAnswer(exchange.status, exchange.reason, answered, content)

    async def manifest(self, method: str, request: RegistryRequest, headers: CIMultiDict[str]) -> OriginAnswer:
        wants_body = not isinstance(request.route, BlobRoute)
        return await self._clients.relayed.ask(
            method, self._upstream, request.origin_target, headers, wants_body=wants_body
        )

    def _ask(self, request: RegistryCall, *, again: bool = False) -> Exchange:
        """One request. A challenge is answered with an anonymous token, unless the caller has a credential.

        `again`: a like one was just refused, so that a token that is known is no better when fetched anew.
        """
        upstream, tokens, caller = self._upstream, self._clients.tokens, request.caller
        endpoint = upstream_endpoint(upstream, anonymous=caller.anonymous)
        if caller.operator:
            return self._ask_as_operator(endpoint, request)
        if caller.authorization is not None:
            return self._clients.ask(upstream, endpoint, request, caller.authorization)
        token = tokens.remembered(upstream, request.repository)
        exchange = self._clients.ask(upstream, endpoint, request, _bearer(token))
        challenge = bearer_challenge(exchange.headers("WWW-Authenticate"))
        if exchange.status != 401 or exchange.endpoint != endpoint or challenge is None or (again and token):
            return exchange
        exchange.drain()
        token = tokens.answer(upstream, request.repository, challenge, token, request.cancel)
        return self._clients.ask(upstream, endpoint, request, _bearer(token))

    def _ask_as_operator(self, endpoint: Endpoint, request: RegistryCall) -> Exchange:
        """One request with the operator's login; where that is refused, once more with one that is asked for anew.

        Raises LocalError where there is none to be had.
        """
        login = self._clients.logins(self._upstream, None)
        exchange = self._ask_with(endpoint, request, login)
        if exchange.status in (401, 403) and exchange.endpoint == endpoint and login is not None:
            other = self._clients.logins(self._upstream, login)
            if other is not None:
                exchange.drain()
                exchange = self._ask_with(endpoint, request, other)
        return exchange

    def _ask_with(self, endpoint: Endpoint, request: RegistryCall, login: Login | None) -> Exchange:
        """As the registry wants it: by a token of its service, or by the password itself."""
        clients, upstream, repository = self._clients, self._upstream, request.repository
        tokens = clients.tokens_of(login)
        token = tokens.remembered(upstream, repository)
        exchange = clients.ask(upstream, endpoint, request, _bearer(token))
        lines = exchange.headers("WWW-Authenticate")
        if exchange.status != 401 or exchange.endpoint != endpoint:
            return exchange
        challenge = bearer_challenge(lines)
        if challenge is not None:
            exchange.drain()
            token = tokens.answer(upstream, repository, challenge, token, request.cancel)
            return clients.ask(upstream, endpoint, request, _bearer(token))
        if login is None or login.is_identity_token:
            return exchange
        if any(line.lower().lstrip().startswith("basic") for line in lines):
            exchange.drain()
            return clients.ask(upstream, endpoint, request, basic(login))
        return exchange

    def _login_wanted(self, digest: Digest, exchange: Exchange) -> UpstreamError:
        """A redirect led to a page for people, and not to the blob."""
        assert exchange.redirect is not None
        exchange.close()
        message = f"origin {self.host}: blob {digest.short}: its redirect leads to a page, not to the blob"
        status = exchange.redirect.status
        return OriginRefused(message, UpstreamKind.DENIED, exchange.redirect, status=status)

    def _refusal(self, repository: str, digest: Digest, exchange: Exchange) -> UpstreamError:
        return refusal(f"origin {self.host}: blob {digest.short} of {repository}", exchange)

    @contextlib.contextmanager
    def _refusals_heeded(self, repository: str, digest: Digest, caller: Caller) -> Iterator[None]:
        """Ask nothing while the origin wants no questions of this caller about this blob."""
        pauses = self._clients.pauses
        key = pauses.key(self.host, repository, digest, caller)
        pauses.check(key)
        try:
            yield
        except UpstreamError as error:
            pauses.heed(key, error)
            self._clients.failures.count(self.host, error)
            raise
        pauses.given(key)


def _route(repository: str, digest: Digest, *, manifest: bool) -> BlobRoute | ManifestRoute:
    return ManifestRoute(repository, digest) if manifest else BlobRoute(repository, digest)


def _request(
    method: str,
    route: BlobRoute | ManifestRoute,
    caller: Caller,
    cancel: Cancellation,
    lines: tuple[tuple[str, str], ...] = (),
) -> RegistryCall:
    if isinstance(route, ManifestRoute) and not caller.lines:
        lines = (*lines, *_MANIFEST_LINES)
    return RegistryCall(method, route.path, route.repository, caller, cancel, lines)


def _framing(method: str, body: SentBody | None) -> list[tuple[str, str]]:
    """The lines that tell the length of a request's body."""
    if body is None:
        return [("Content-Length", "0")] if method in ("POST", "PUT", "PATCH") else []
    lines = [("Transfer-Encoding", "chunked")] if body.length is None else [("Content-Length", str(body.length))]
    return [*lines, ("Expect", "100-continue")] if body.expects_continue else lines


def _bearer(token: str | None) -> str | None:
    return f"Bearer {token}" if token is not None else None
