"""Bearer tokens: fetched from the realm that a registry's challenge names, kept until they expire.

No credential of anybody passes here: whoever fetches adds it. Tokens are never logged.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from proto.bounded_dict import BoundedDict
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.transport.cancellation import Cancellation
    from proto.oci.upstreams import UpstreamConfig
    from proto.oci.www_authenticate import Challenge

    # (upstream, realm, fields, cancel) -> body of a 200; raises UpstreamError.
    FetchToken = Callable[[UpstreamConfig, str, list[tuple[str, str]], Cancellation], bytes]

# By which token services know this program.
CLIENT_ID = "layercast"
# The default of the token specification, used if `expires_in` is missing.
DEFAULT_LIFETIME_S = 60.0
# The longest lifetime that is believed. No token service gives more.
LIFETIME_MAX_S = 24 * 3600.0
# A token is not used in its last seconds, because clocks differ and a request takes time.
EXPIRY_MARGIN_S = 10.0
# One per repository. Above this the oldest are dropped.
TOKENS_MAX = 4096


@dataclass(frozen=True, slots=True)
class _TokenKey:
    upstream: str
    realm: str
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    good_until_s: float


class AnonymousTokens:
    """The tokens that anyone may have. Safe to use from many threads; one fetch at a time per token."""

    def __init__(self, fetch: FetchToken, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: BoundedDict[_TokenKey, _Token] = BoundedDict(TOKENS_MAX)
        self._fetching: dict[_TokenKey, threading.Lock] = {}
        # Which token a repository wanted last time, so that it can be sent without being asked for.
        self._wanted: BoundedDict[tuple[str, str], _TokenKey] = BoundedDict(TOKENS_MAX)

    def remembered(self, upstream: UpstreamConfig, repository: str) -> str | None:
        """A token for this repository that is still valid, or None."""
        with self._lock:
            key = self._wanted.get((upstream.host, repository))
            token = self._tokens.get(key) if key is not None else None
            return token.value if token is not None and self._clock() < token.good_until_s else None

    def answer(
        self,
        upstream: UpstreamConfig,
        repository: str,
        challenge: Challenge,
        refused: str | None,
        cancel: Cancellation,
    ) -> str:
        """The token that a Bearer challenge asks for. `refused` is a token that was just sent and not accepted.

        Raises UpstreamError: what the token service answered.
        """
        scope = challenge.get("scope") or f"repository:{repository}:pull"
        key = _TokenKey(upstream.host, challenge.get("realm") or "", challenge.get("service") or "", scope)
        with self._lock:
            self._wanted[upstream.host, repository] = key
            one_at_a_time = self._fetching.setdefault(key, threading.Lock())
        with one_at_a_time:
            try:
                with self._lock:
                    known = self._tokens.get(key)
                if known is not None and known.value != refused and self._clock() < known.good_until_s:
                    return known.value
                asked_s = self._clock()
                token = _parse(upstream, self._fetch(upstream, key.realm, _fields(key), cancel), asked_s)
                with self._lock:
                    self._tokens[key] = token
                return token.value
            finally:
                with self._lock:
                    self._fetching.pop(key, None)


def _fields(key: _TokenKey) -> list[tuple[str, str]]:
    """What a realm is asked: the service, if the challenge named one, and each scope."""
    fields = [("service", key.service)] if key.service else []
    return fields + [("scope", scope) for scope in key.scope.split(" ") if scope]


def token_url(realm: str, fields: list[tuple[str, str]]) -> str:
    """As a GET asks a realm, which may have a query of its own."""
    return f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"


def token_form(fields: list[tuple[str, str]], identity_token: str) -> bytes:
    """The body of a POST (OAuth 2) that shows an identity token, as docker sends it: the scopes are one field there.

    See distribution's documentation, "Docker Registry v2 authentication using OAuth2".
    """
    scopes = " ".join(value for name, value in fields if name == "scope")
    form = [("grant_type", "refresh_token"), *((name, value) for name, value in fields if name != "scope")]
    return urlencode([*form, ("client_id", CLIENT_ID), ("scope", scopes), ("refresh_token", identity_token)]).encode()


def _parse(upstream: UpstreamConfig, body: bytes, asked_s: float) -> _Token:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    value = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    # A token goes into a header, so it must be printable ASCII.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise UpstreamError(f"token service of {upstream.host} answered without a token", UpstreamKind.UNAVAILABLE)
    lifetime = answer.get("expires_in")
    if not isinstance(lifetime, (int, float)) or isinstance(lifetime, bool) or not lifetime > 0:
        lifetime = DEFAULT_LIFETIME_S
    lifetime_s = min(lifetime, LIFETIME_MAX_S)
    return _Token(value, asked_s + lifetime_s - min(EXPIRY_MARGIN_S, lifetime_s / 2))
