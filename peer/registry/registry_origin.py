"""A registry as an origin: tokens, redirects, ranges, pauses and refusals of the distribution API, over HTTP.

It never sends a credential to another server than the one it was given for. What it shares between registries is in
RegistryClients.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from multidict import CIMultiDict

from peer.registry.addresses import upstream_endpoint
from peer.registry.base import ANYONE, OriginAnswer, OriginRefused
from peer.registry.blob_body import HttpBody, http_body, is_encoded
from peer.registry.failures import Failures
from peer.registry.pauses import Pauses
from peer.registry.redirects import REDIRECT_STATUSES, REDIRECTS_MAX, lines_for, redirect_target, url_target
from peer.registry.relayed import BODY_BYTES_MAX, RelayClient, as_sent
from peer.registry.retry import asked_pause_s
from peer.registry.sent_body import WholeBody
from peer.registry.tokens import AnonymousTokens, token_form, token_url
from proto.errors import DigestInvalid, NameInvalid, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.ranges import format_range, parse_content_range
from proto.oci.routes import HOP_HEADER, BlobRoute, ManifestRoute, parse_reference
from proto.oci.www_authenticate import bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.registry.addresses import Endpoint
    from peer.registry.base import Caller, Login, SentBody
    from peer.registry.client import OriginHttp
    from peer.registry.exchange import Exchange
    from peer.registry.queues import UpstreamQueues
    from peer.transport.cancellation import Cancellation
    from proto.oci.routes import RegistryRequest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

    # (upstream, a login of it that was just refused or None) -> the operator's login. Raises LocalError.
    Logins = Callable[[UpstreamConfig, Login | None], Login | None]
    from proto.wire.messages import Source

# Logins whose tokens are kept: one an upstream, and those that were given up.
LOGINS_MAX: Final = 64
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


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and for whom. If the caller has no credential, an anonymous token for `repository` is sent."""

    method: str
    target: str
    repository: str
    caller: Caller
    cancel: Cancellation
    lines: tuple[tuple[str, str], ...] = ()


class RegistryClients:
    """What all registries share: connections, anonymous tokens, pauses, counters. Safe to use from many threads."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        on_request: Callable[[str], None],
        user_agent: str,
        queues: UpstreamQueues,
        http: OriginHttp,
        logins: Logins,
    ) -> None:
        """See peer.registry.origins.Origins."""
        self.upstreams = upstreams
        self.on_request = on_request
        self.http = http
        self.tokens = AnonymousTokens(self._fetch_token)
        self.logins = logins
        # Of the logins that are in use; another one begins with none.
        self._login_tokens: dict[Login, AnonymousTokens] = {}
        self._lock = threading.Lock()
        self.pauses = Pauses()
        self.failures = Failures()
        self.lines = (
            ("User-Agent", user_agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            (HOP_HEADER, "1"),
        )
        self.relayed = RelayClient(upstreams, on_request, queues, self.http)

    def origin(self, upstream: UpstreamConfig) -> RegistryOrigin:
        """One registry."""
        return RegistryOrigin(upstream, self)

    def leave_alone(self, source: Source, digest: Digest, seconds: float) -> None:
        """See Origins."""
        message = f"origin {source.upstream}: blob {digest.short} of {source.repository} is limited"
        error = UpstreamError(message, UpstreamKind.RATE_LIMITED, status=429, retry_after_s=seconds)
        self.pauses.heed(self.pauses.key(source.upstream, source.repository, digest, ANYONE), error)

    def close(self) -> None:
        """Close idle connections."""
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
        """One request; a GET follows redirects. Any status is returned. Raises UpstreamError and FetchCancelled.

        A client that is refused where a redirect led, or that may not be led there, is given the redirect itself: it
        may get on by itself.
        """
        self.on_request(counted_as or request.method)
        target, lines = request.target, [*(as_sent(request.caller.lines) or self.lines), *request.lines]
        if authorization is not None:
            lines += as_sent([("Authorization", authorization)])
        redirect: OriginAnswer | None = None
        for _ in range(REDIRECTS_MAX + 1):
            exchange = self.http.send(endpoint, request.method, target, lines, request.cancel)
            location = exchange.header("Location")
            if request.method != "GET" or exchange.status not in REDIRECT_STATUSES or location is None:
                exchange.redirect = redirect
                return exchange
            redirect = redirect or _words(exchange)
            exchange.close()
            try:
                leads_to, target = redirect_target(
                    self.upstreams(), upstream, endpoint, target, location, anonymous=request.caller.anonymous
                )
            except UpstreamError as error:
                raise OriginRefused(str(error), error.kind, redirect, status=redirect.status) from error
            endpoint, lines = leads_to, lines_for(leads_to, endpoint, lines)
        raise UpstreamError(f"origin {upstream.host}: more than {REDIRECTS_MAX} redirects", UpstreamKind.UNAVAILABLE)

    def tokens_of(self, login: Login | None) -> AnonymousTokens:
        """The tokens that this login gets."""
        if login is None:
            return self.tokens
        with self._lock:
            tokens = self._login_tokens.get(login)
            if tokens is None:
                fetch = functools.partial(self._fetch_token, login=login)
                tokens = self._login_tokens[login] = AnonymousTokens(fetch)
                while len(self._login_tokens) > LOGINS_MAX:
                    del self._login_tokens[next(iter(self._login_tokens))]
            return tokens

    def _fetch_token(
        self,
        upstream: UpstreamConfig,
        realm: str,
        fields: list[tuple[str, str]],
        cancel: Cancellation,
        login: Login | None = None,
    ) -> bytes:
        """Ask a token service, without any credential or with the operator's."""
        if login is not None and login.is_identity_token:
            exchange = self._post_token(upstream, realm, token_form(fields, login.password), cancel)
        else:
            endpoint, target = url_target(self.upstreams(), upstream, token_url(realm, fields), anonymous=True)
            request = _Request("GET", target, "", ANYONE, cancel)
            authorization = _basic(login) if login is not None else None
            exchange = self.ask(upstream, endpoint, request, authorization, counted_as="TOKEN")
        try:
            if exchange.status == 200:
                return exchange.read_all(TOKEN_ANSWER_BYTES_MAX)
            raise _refusal(f"token service of {upstream.host}", exchange)
        finally:
            exchange.close()

    def _post_token(self, upstream: UpstreamConfig, realm: str, form: bytes, cancel: Cancellation) -> Exchange:
        """No redirect is followed: what the form shows is for this realm alone."""
        self.on_request("TOKEN")
        endpoint, target = url_target(self.upstreams(), upstream, realm, anonymous=True)
        lines = [*self.lines, ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(form)))]
        return self.http.send(endpoint, "POST", target, lines, cancel, WholeBody(form))


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
            if (exchange.status == 206 and is_encoded(exchange)) or _refuses_ranges(exchange, start):
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
            settled = exchange.status in _HEAD_SETTLES and (exchange.status != 200 or _length(exchange) is not None)
            if not settled and not manifest:
                exchange.drain()
                one_byte = (("Range", format_range(0, 1)),)
                exchange = self._ask(_request("GET", route, caller, cancel, one_byte), again=True)
                if _refuses_ranges(exchange, 0):
                    exchange.close()
                    exchange = self._ask(_request("GET", route, caller, cancel), again=True)
            if exchange.status not in (200, 206, 416):
                raise self._refusal(repository, digest, exchange)
            if exchange.redirect is not None and _is_page(exchange):
                raise self._login_wanted(digest, exchange)
        try:
            if exchange.status == 200 or is_encoded(exchange):
                return _length(exchange)
            with http_body(exchange, 0, 1) as body:
                return body.size_bytes
        finally:
            exchange.close()

    def tagged(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> bytes:
        route = ManifestRoute(repository, tag)
        exchange = self._ask(_Request("GET", route.path, repository, caller, cancel, _MANIFEST_LINES))
        try:
            if exchange.status != 200:
                raise _refusal(f"origin {self.host}: tag {tag} of {repository}", exchange)
            return exchange.read_all(MANIFEST_BYTES_MAX)
        finally:
            exchange.close()

    def tag_digest(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> Digest:
        """See Origin. By HEAD, which registries do not count as a pull; one that tells no digest is asked for all."""
        route = ManifestRoute(repository, tag)
        with contextlib.closing(self._ask(_request("HEAD", route, caller, cancel))) as exchange:
            if exchange.status not in (200, 405):
                raise _refusal(f"origin {self.host}: tag {tag} of {repository}", exchange)
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
            request = _Request("GET", f"/v2/{repository}/tags/list{query}", repository, caller, cancel)
            with contextlib.closing(self._ask(request)) as exchange:
                if exchange.status != 200:
                    raise _refusal(f"origin {self.host}: tags of {repository}", exchange)
                has_more = exchange.header("Link") is not None
                page = _tags(exchange.read_all(TAGS_PAGE_BYTES_MAX), self.host)
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

    def _ask(self, request: _Request, *, again: bool = False) -> Exchange:
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

    def _ask_as_operator(self, endpoint: Endpoint, request: _Request) -> Exchange:
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

    def _ask_with(self, endpoint: Endpoint, request: _Request, login: Login | None) -> Exchange:
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
            return clients.ask(upstream, endpoint, request, _basic(login))
        return exchange

    def _login_wanted(self, digest: Digest, exchange: Exchange) -> UpstreamError:
        """A redirect led to a page for people, and not to the blob."""
        assert exchange.redirect is not None
        exchange.close()
        message = f"origin {self.host}: blob {digest.short}: its redirect leads to a page, not to the blob"
        status = exchange.redirect.status
        return OriginRefused(message, UpstreamKind.DENIED, exchange.redirect, status=status)

    def _refusal(self, repository: str, digest: Digest, exchange: Exchange) -> UpstreamError:
        return _refusal(f"origin {self.host}: blob {digest.short} of {repository}", exchange)

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
) -> _Request:
    if isinstance(route, ManifestRoute) and not caller.lines:
        lines = (*lines, *_MANIFEST_LINES)
    return _Request(method, route.path, route.repository, caller, cancel, lines)


def _framing(method: str, body: SentBody | None) -> list[tuple[str, str]]:
    """The lines that tell the length of a request's body."""
    if body is None:
        return [("Content-Length", "0")] if method in ("POST", "PUT", "PATCH") else []
    lines = [("Transfer-Encoding", "chunked")] if body.length is None else [("Content-Length", str(body.length))]
    return [*lines, ("Expect", "100-continue")] if body.expects_continue else lines


def _bearer(token: str | None) -> str | None:
    return f"Bearer {token}" if token is not None else None


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def _length(exchange: Exchange) -> int | None:
    """The blob's size, as far as the answer's length is that."""
    return None if is_encoded(exchange) else exchange.content_length


def _refuses_ranges(exchange: Exchange, start: int) -> bool:
    """Whether a 416 does not say that the blob has no byte at `start`: some servers answer every range with it."""
    told = parse_content_range(exchange.header("Content-Range"))
    return exchange.status == 416 and (told is None or (told.size_bytes or 0) > start)


def _is_page(exchange: Exchange) -> bool:
    return (exchange.header("Content-Type") or "").partition(";")[0].strip().lower() == "text/html"


def _words(exchange: Exchange) -> OriginAnswer:
    """All of an answer with a short body, whose length is told anew."""
    return OriginAnswer(exchange.status, exchange.reason, CIMultiDict(exchange.lines), exchange.drain())


def _tags(content: bytes, host: str) -> list[str]:
    """Of one page; what is no tag is left out. Raises UpstreamError."""
    try:
        tags = json.loads(content)["tags"] or []
        names = [tag for tag in tags if isinstance(tag, str)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise UpstreamError(f"origin {host}: its list of tags is none", UpstreamKind.CONTENT) from None
    return [name for name in names if _is_tag(name)]


def _is_tag(name: str) -> bool:
    try:
        return isinstance(parse_reference(name), str)
    except (NameInvalid, DigestInvalid):
        return False


def _refusal(what: str, exchange: Exchange) -> UpstreamError:
    """The answer as an error, with the origin's own words where it has any."""
    status = exchange.status
    kind = _STATUS_KINDS.get(status, UpstreamKind.UNAVAILABLE)
    delay_s = asked_pause_s(exchange.header) if status in (429, 503) else None
    message = f"{what}: {exchange.endpoint.host} answered {status}"
    words = _words(exchange)
    if exchange.head:
        return UpstreamError(message, kind, status=status, retry_after_s=delay_s)
    return OriginRefused(message, kind, exchange.redirect or words, status=status, retry_after_s=delay_s)
