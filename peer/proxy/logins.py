"""Logins of clients that name their registry in each repository's path.

podman, CRI-O, skopeo and buildah (all of containers/image), and crane, cosign and kaniko (all of go-containerregistry)
take their challenge from `/v2/` of the mirror alone, and go with each login to the realm that this names. The origin's
own challenge would send the password of one registry to the realm of another. oras takes each answer's challenge, and
adds the repository as it names it to its scope, which strict realms refuse. So they are all sent to a realm here, which
passes each login on to the realm of the registry that its scope names, with that registry's own scope. What the client
gets is that realm's answer.

For a registry that wants a password with each request, or nothing, the token is one of ours: it holds the client's own
credential, sealed under a key that ends with this process, and is good for that registry alone, for minutes. Nothing is
kept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from multidict import CIMultiDict, CIMultiDictProxy

from peer.proxy.heads import for_origin, refused
from peer.proxy.target import understand
from peer.registry.queues import Work
from peer.registry.sent_body import WholeBody
from peer.transport.cancellation import Cancellation
from proto.errors import LayercastError, NameInvalid, UpstreamError, UpstreamKind
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal, refusal_for
from proto.oci.routes import HOP_HEADER, NamedBy, Ping, RegistryRequest, TagsRoute
from proto.oci.www_authenticate import Challenge, bearer_challenge, parse_challenges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peer.proxy.client_request import ClientRequest, ProxyContext
    from peer.registry.base import OriginAnswer
    from proto.oci.upstreams import UpstreamConfig

TOKEN_PATH: Final = "/token"
SERVICE: Final = "layercast"
# All of containers/image sends it, and no other client that is known.
_MARK: Final = "Docker-Distribution-Api-Version"
# In the User-Agent of the others that ask the root for all of their registries.
_AGENT: Final = "go-containerregistry"
_OURS: Final = "lc."
# In place of a credential, where none is wanted or known.
NOBODY: Final = "lc.none"
_LIFE_S: Final = 300
# A request that began within that life may come so late.
_LATE_S: Final = 60
_CHALLENGE_S: Final = 60.0
_FORM_BYTES_MAX: Final = 64 * 1024
_SCOPE: Final = re.compile(r"repository(?:\([a-z0-9]+\))?:(?P<name>.+):(?P<actions>[a-z,*]*)")
# Of a realm's answer. Its body goes byte for byte, in the coding that the client asked for.
_PASSED_BACK: Final = ("Content-Type", "Content-Encoding", "Retry-After", "WWW-Authenticate")
# What a client tells of its login, and is told anew to the realm.
_REPLACED: Final = frozenset({"scope", "service", "ns"})


@dataclass(frozen=True, slots=True)
class _Login:
    """To which registry a client wants to log in, and for what there; None: it did not say."""

    upstream: UpstreamConfig | None
    scopes: tuple[str, ...] = ()


class Logins:
    """One a mirror."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._seal = AESGCM(AESGCM.generate_key(256))
        # What a registry asks for, and how long that is believed. No more of them than the allow-list has.
        self._known: dict[str, tuple[list[str], float]] = {}

    # --- the mirror's requests -----------------------------------------------------------------------------------

    def answer_to_ping(self, asked: ClientRequest) -> web.Response | None:
        """Ours to a client that asks for the challenge of all its registries; None where the origin's is due."""
        if not _asks_for_all(asked.http, asked.registry):
            return None
        if "Authorization" in asked.http.headers:
            return web.json_response({})
        challenge = _challenge(asked.http)
        answer = refused(Refusal(401, "UNAUTHORIZED", "the repository tells which registry is meant"))
        answer.headers["WWW-Authenticate"] = str(challenge)
        answer.headers[_MARK] = "registry/2.0"
        return answer

    def lead_here(self, asked: ClientRequest, answer: web.StreamResponse) -> None:
        """Name the realm here in a challenge of the origin's to a client that named its registry in the path alone."""
        if answer.status != 401 or answer.prepared or asked.registry.named_by is not NamedBy.PREFIX:
            return
        bearer = bearer_challenge(answer.headers.getall("WWW-Authenticate", []))
        told = bearer.get("scope") if bearer is not None else None
        if bearer is None or not told:
            return
        scopes = [_SCOPE.fullmatch(scope) for scope in told.split(" ")]
        named = [f"repository:{asked.upstream.host}/{each['name']}:{each['actions']}" for each in scopes if each]
        if named:
            challenge = _challenge(asked.http, scope=" ".join(named), error=bearer.get("error") or "")
            answer.headers["WWW-Authenticate"] = str(challenge)

    def unsealed(self, http: web.Request, registry: RegistryRequest, upstream: UpstreamConfig) -> web.Request:
        """The request with the client's own credential in place of a token of ours, if it is for this upstream."""
        scheme, _, token = http.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(_OURS) or _asks_for_all(http, registry):
            return http
        headers = CIMultiDict(http.headers)
        del headers["Authorization"]
        authorization = self._open(token, upstream)
        if authorization is not None:
            headers["Authorization"] = authorization
        return http.clone(headers=headers)

    def _open(self, token: str, upstream: UpstreamConfig) -> str | None:
        try:
            sealed = base64.urlsafe_b64decode(token.removeprefix(_OURS).encode() + b"==")
            opened = self._seal.decrypt(sealed[:12], sealed[12:], upstream.host.encode()).decode()
            until_s, _, authorization = opened.partition(" ")
            return authorization if asyncio.get_running_loop().time() < float(until_s) else None
        except (ValueError, InvalidTag):
            return None

    def _sealed(self, authorization: str, upstream: UpstreamConfig) -> str:
        nonce = os.urandom(12)
        until_s = asyncio.get_running_loop().time() + _LIFE_S + _LATE_S
        content = f"{until_s} {authorization}".encode()
        sealed = nonce + self._seal.encrypt(nonce, content, upstream.host.encode())
        return _OURS + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    # --- the realm -----------------------------------------------------------------------------------------------

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer a request for a token, and count it."""
        try:
            response = await self._answer(http)
        except LayercastError as error:
            response = refused(refusal_for(error))
        self._context.metrics.answered("token", response.status)
        return response

    async def _answer(self, http: web.Request) -> web.Response:
        if HOP_HEADER in http.headers:
            return refused(Refusal(508, "UNSUPPORTED", "this login came through Layercast already: a realm leads back"))
        if http.method not in ("GET", "POST") or "Origin" in http.headers:
            return refused(Refusal(405, "UNSUPPORTED", "logins come by GET or POST, from no web page"))
        fields = parse_qsl(http.raw_path.partition("?")[2], keep_blank_values=True)
        form = await _form_of(http) if http.method == "POST" else None
        login = self._login([*fields, *(form or ())])
        if login.upstream is None:
            # A password without a repository goes to nobody; the first pull shows whether it is right.
            return _token(NOBODY)
        challenges = await self._challenges(login.upstream)
        bearer = bearer_challenge(challenges)
        if bearer is not None:
            return await self._from_realm(http, login, bearer, fields, form)
        authorization = http.headers.get("Authorization", "")
        wants_password = any(challenge.scheme == "basic" for challenge in parse_challenges(challenges))
        if wants_password and authorization.lower().startswith("basic "):
            return _token(self._sealed(authorization, login.upstream))
        return _token(NOBODY)

    def _login(self, fields: list[tuple[str, str]]) -> _Login:
        """The first repository that is named decides; scopes at other registries are left out.

        Raises NameInvalid, PathUnknown and UpstreamNotAllowed.
        """
        upstreams = self._context.origins.upstreams()
        upstream: UpstreamConfig | None = None
        scopes: list[str] = []
        for scope in (part for name, value in fields if name == "scope" for part in value.split(" ")):
            match = _SCOPE.fullmatch(scope)
            if match is None:
                continue
            request, found = understand(f"/v2/{match['name']}/tags/list", CIMultiDict(), upstreams)
            upstream = upstream or found
            if found.host == upstream.host and isinstance(request.route, TagsRoute):
                scopes.append(f"repository:{request.route.repository}:{match['actions']}")
        return _Login(upstream, tuple(dict.fromkeys(scopes)))

    async def _challenges(self, upstream: UpstreamConfig) -> list[str]:
        """What the registry asks of whoever comes without a credential. Raises UpstreamError."""
        now_s = asyncio.get_running_loop().time()
        known, until_s = self._known.get(upstream.host, ([], 0.0))
        if now_s < until_s:
            return known
        ping = RegistryRequest(upstream.host, Ping(), NamedBy.CONNECTION, "")
        headers = for_origin(CIMultiDictProxy(CIMultiDict()))
        try:
            async with asyncio.timeout(self._context.limits.relay_s):
                answer = await self._context.origins.of(upstream).manifest("GET", ping, headers)
        except TimeoutError:
            raise UpstreamError(f"{upstream.host} did not answer in time", UpstreamKind.UNAVAILABLE) from None
        if answer.status == 429 or answer.status >= 500:
            # What it asks for is not known: to go without a login would look like a wrong one.
            raise UpstreamError(f"{upstream.host} answered {answer.status}", UpstreamKind.UNAVAILABLE)
        found = answer.headers.getall("WWW-Authenticate", []) if answer.status == 401 else []
        self._known[upstream.host] = found, now_s + _CHALLENGE_S
        return found

    async def _from_realm(
        self,
        http: web.Request,
        login: _Login,
        challenge: Challenge,
        fields: list[tuple[str, str]],
        form: list[tuple[str, str]] | None,
    ) -> web.Response:
        """The realm's answer. Raises UpstreamError."""
        assert login.upstream is not None
        own = [("service", service)] if (service := challenge.get("service")) else []
        own += [("scope", " ".join(login.scopes))] if form is not None else [("scope", each) for each in login.scopes]
        realm = challenge.get("realm") or ""
        if form is None:
            realm += ("&" if "?" in realm else "?") + urlencode([*_kept(fields), *own])
        body = urlencode([*_kept(form), *own]).encode() if form is not None else None
        origin = self._context.origins.of(login.upstream)
        cancel = Cancellation()
        work = self._context.origins.queues.submit(
            Work.RELAY,
            login.upstream.host,
            origin.ask_realm,
            http.method,
            realm,
            for_origin(http.headers),
            WholeBody(body) if body is not None else None,
            cancel,
        )
        try:
            async with asyncio.timeout(self._context.limits.relay_s):
                return _passed_back(login.upstream, await asyncio.wrap_future(work))
        except TimeoutError:
            problem = f"token service of {login.upstream.host} did not answer in time"
            raise UpstreamError(problem, UpstreamKind.UNAVAILABLE) from None
        finally:
            cancel.cancel()


def _asks_for_all(http: web.Request, registry: RegistryRequest) -> bool:
    """Whether this is the question of a client that will name its registries in its repositories."""
    by_its_kind = _MARK in http.headers or _AGENT in http.headers.get("User-Agent", "")
    return isinstance(registry.route, Ping) and registry.named_by is NamedBy.DEFAULT and by_its_kind


def _challenge(http: web.Request, **parameters: str) -> Challenge:
    """That leads to the realm here."""
    realm = f"http://{http.headers.get('Host', '')}{TOKEN_PATH}"
    told = {name: value for name, value in parameters.items() if value}
    return Challenge("bearer", {"realm": realm, "service": SERVICE, **told})


def _kept(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if name not in _REPLACED]


def _passed_back(upstream: UpstreamConfig, answer: OriginAnswer) -> web.Response:
    if 300 <= answer.status < 400:
        # Followed, it would take the password along.
        raise UpstreamError(f"token service of {upstream.host} redirects logins", UpstreamKind.DENIED)
    headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _token(token: str) -> web.Response:
    """In the words of a token service."""
    document: Mapping[str, object] = {"token": token, "access_token": token, "expires_in": _LIFE_S}
    return web.Response(body=json.dumps(document).encode(), content_type=BODY_CONTENT_TYPE)


async def _form_of(http: web.Request) -> list[tuple[str, str]]:
    content = await http.content.read(_FORM_BYTES_MAX + 1) if http.body_exists else b""
    while len(content) <= _FORM_BYTES_MAX and (more := await http.content.read(_FORM_BYTES_MAX)):
        content += more
    if len(content) > _FORM_BYTES_MAX:
        raise NameInvalid(f"a login's form is longer than {_FORM_BYTES_MAX} bytes")
    try:
        return parse_qsl(content.decode("ascii"), keep_blank_values=True, max_num_fields=64) if content else []
    except ValueError as error:
        raise NameInvalid("a login's form cannot be read") from error
