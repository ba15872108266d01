"""A token server as docker-registry's token authentication wants it: RS256 tokens with an x5c header.

Anyone gets `pull` for public repositories; a known user gets what the scope asks for, by GET with a password, or by
POST (OAuth 2) with a password or an identity token. For tests alone.
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from tests.support.tls import KeyPair

SERVICE: Final = "test-registry"
ISSUER: Final = "test-issuer"
_LIFE_S: Final = 300
# Where the front of a registry that knows no tokens asks whether a request may pass (nginx's auth_request).
CHECK_PATH: Final = "/check"
_REPOSITORY: Final = re.compile(r"/v2/(?P<name>.+)/(manifests|blobs|tags|referrers)/")


@dataclass(slots=True)
class TokenRequest:
    """One request that the token server answered; `user` is "" for an anonymous one.

    `by` is how it said who it is: nothing, password or refresh_token.
    """

    user: str
    scopes: list[str]
    granted: bool
    by: str = ""


class TokenServer(HttpServer):
    """Serves tokens from construction until `close`, at `realm`. `requests` lists what was asked.

    With `strict_repositories` it refuses whoever asks for another one, as ghcr.io does, and counts that in `refused`.
    """

    def __init__(
        self,
        signer: KeyPair,
        users: Mapping[str, str],
        public_repositories: Collection[str] = (),
        *,
        strict_repositories: Collection[str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._strict = strict_repositories
        self.refused = 0
        self._signer = signer
        self._users = dict(users)
        self._public = frozenset(public_repositories)
        self._identity_tokens: dict[str, str] = {}
        self._given: dict[str, dict[str, Any]] = {}
        self.requests: list[TokenRequest] = []
        self._host = host
        super().__init__(_Handler, host)

    @property
    def realm(self) -> str:
        """The URL that a challenge names."""
        return f"http://{self.address}/token"

    @property
    def address(self) -> str:
        """HOST:PORT, which an upstream over plain http must allow: it is another port than the registry's."""
        return f"{self._host}:{self.port}"

    def registry_auth(self) -> dict[str, object]:
        """The `auth` section of a docker-registry that trusts this server."""
        bundle: Path = self._signer.certificate_file
        token = {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
        return {"token": token}

    def knows(self, user: str, password: str) -> bool:
        """Whether that is a user's password."""
        return self._users.get(user) == password

    def identity_token(self, user: str) -> str:
        """What `docker login` keeps in place of a password: it gets this user tokens, by POST alone."""
        token = f"identity-of-{self._users[user]}"
        self._identity_tokens[token] = user
        return token

    def user_of(self, identity_token: str) -> str | None:
        """Whose identity token that is."""
        return self._identity_tokens.get(identity_token)

    def is_strict_about(self, scopes: list[str]) -> bool:
        """Whether one of these scopes is of a repository that it does not know."""
        names = [scope.split(":")[1] if scope.count(":") == 2 else scope for scope in scopes]
        return self._strict is not None and any(name not in self._strict for name in names)

    def token(self, user: str, scopes: list[str], by: str = "") -> str:
        """A signed token for the part of `scopes` that `user` ("" for nobody) may have."""
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "iat": now_s,
            "nbf": now_s - 10,
            "exp": now_s + _LIFE_S,
            "jti": str(uuid.uuid4()),
            "access": [access for scope in scopes if (access := self._access(user, scope))],
        }
        self.requests.append(TokenRequest(user, scopes, bool(claims["access"]), by))
        der = self._signer.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_b64url(json.dumps(head).encode())}.{_b64url(json.dumps(claims).encode())}"
        signature = self._signer.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        token = f"{signed}.{_b64url(signature)}"
        self._given[token] = claims
        return token

    def permits(self, token: str, scope: str) -> bool:
        """Whether this is one of its tokens that has not expired, for all of the scope ("": for any)."""
        claims = self._given.get(token)
        if claims is None or float(claims["exp"]) < time.time():
            return False
        _, name, actions = scope.split(":") if scope else ("", "", "")
        allowed = [access["actions"] for access in claims["access"] if access["name"] == name]
        return not scope or any(set(actions.split(",")) <= set(each) for each in allowed)

    def _access(self, user: str, scope: str) -> dict[str, object] | None:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        asked = actions.split(",")
        if not user:
            asked = ["pull"] if name in self._public and "pull" in asked else []
        return {"type": kind, "name": name, "actions": asked} if asked else None


class _Handler(QuietHandler):
    server: TokenServer

    def do_GET(self) -> None:
        """By a password in the Authorization header, or by nothing."""
        if self.path == CHECK_PATH:
            self._check()
            return
        user, allowed = self._user()
        query = parse_qs(urlsplit(self.path).query)
        self._answer(user if allowed else None, query.get("scope", []), by="password" if user else "")

    def _check(self) -> None:
        method, target = self.headers["X-Original-Method"], self.headers["X-Original-URI"]
        found = _REPOSITORY.match(target)
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{found['name']}:{actions}" if found else ""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.permits(token, scope):
            self._send(200, {})
            return
        challenge = f'Bearer realm="{self.server.realm}",service="{SERVICE}"' + (f',scope="{scope}"' if scope else "")
        self._send(401, {"errors": [{"code": "UNAUTHORIZED"}]}, ("WWW-Authenticate", challenge))

    def do_POST(self) -> None:
        """By a form, as OAuth 2 has it."""
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        fields = {name: values[0] for name, values in form.items()}
        by = fields.get("grant_type", "")
        user: str | None = None
        if by == "password" and self.server.knows(fields.get("username", ""), fields.get("password", "")):
            user = fields["username"]
        elif by == "refresh_token":
            user = self.server.user_of(fields.get("refresh_token", ""))
        self._answer(user, form.get("scope", []), by)

    def _answer(self, user: str | None, asked: list[str], by: str) -> None:
        """A token for that user ("" for nobody); None: it is not who it says."""
        scopes = [scope for value in asked for scope in value.split(" ")]
        if user is None:
            self._send(401, {"details": "incorrect username or password"})
        elif self.server.is_strict_about(scopes):
            self.server.refused += 1
            self._send(403, {"errors": [{"code": "DENIED", "message": "no such scope"}]})
        else:
            token = self.server.token(user, scopes, by)
            self._send(200, {"token": token, "access_token": token, "expires_in": _LIFE_S})

    def _user(self) -> tuple[str, bool]:
        """The user's name ("" for nobody) and whether the credentials are good."""
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return "", True
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return user, self.server.knows(user, password)

    def _send(self, status: int, document: dict[str, object], *lines: tuple[str, str]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        kind, length = ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
        # Nobody asks twice within a test, and nodes that several tests share would keep it open beyond one.
        for name, value in (kind, length, ("Connection", "close"), *lines):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
