"""What registries share in one process: connections, tokens, pauses, counters; and one request with its redirects.

It never sends a credential to another server than the one it was given for. What is asked of a registry, and with which
credential, is in registry_origin.
"""

from __future__ import annotations

import base64
import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.base import ANYONE, OriginAnswer, OriginRefused
from peer.registry.failures import Failures
from peer.registry.pauses import Pauses
from peer.registry.redirects import REDIRECT_STATUSES, REDIRECTS_MAX, lines_for, redirect_target, url_target
from peer.registry.registry_answers import refusal, whole_answer
from peer.registry.relayed import RelayClient, as_sent
from peer.registry.sent_body import WholeBody
from peer.registry.tokens import AnonymousTokens, token_form, token_url
from proto.errors import UpstreamError, UpstreamKind
from proto.oci.routes import HOP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.addresses import Endpoint
    from peer.registry.base import Caller, Login
    from peer.registry.client import OriginHttp
    from peer.registry.exchange import Exchange
    from peer.registry.queues import UpstreamQueues
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable
    from proto.wire.messages import Source

    # (upstream, a login of it that was just refused or None) -> the operator's login. Raises LocalError.
    Logins = Callable[[UpstreamConfig, Login | None], Login | None]

# Logins whose tokens are kept: one an upstream, and those that were given up.
LOGINS_MAX: Final = 64
TOKEN_ANSWER_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class RegistryCall:
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
        request: RegistryCall,
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
            redirect = redirect or whole_answer(exchange)
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
            request = RegistryCall("GET", target, "", ANYONE, cancel)
            authorization = basic(login) if login is not None else None
            exchange = self.ask(upstream, endpoint, request, authorization, counted_as="TOKEN")
        try:
            if exchange.status == 200:
                return exchange.read_all(TOKEN_ANSWER_BYTES_MAX)
            raise refusal(f"token service of {upstream.host}", exchange)
        finally:
            exchange.close()

    def _post_token(self, upstream: UpstreamConfig, realm: str, form: bytes, cancel: Cancellation) -> Exchange:
        """No redirect is followed: what the form shows is for this realm alone."""
        self.on_request("TOKEN")
        endpoint, target = url_target(self.upstreams(), upstream, realm, anonymous=True)
        lines = [*self.lines, ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(form)))]
        return self.http.send(endpoint, "POST", target, lines, cancel, WholeBody(form))


def basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
