"""An origin that is asked with the operator's login: by a token of its service, or by the password."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from peer.registry.base import ANYONE, IDENTITY_TOKEN, OPERATOR, Login
from peer.registry.origins import Origins
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError
from proto.ids import Digest
from proto.oci.upstreams import UpstreamTable
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.peer.proxy.harness import ScriptedOrigin

CONTENT = b"a private blob"
DIGEST = Digest.of(CONTENT)
OLD, NEW = Login("robot", "old"), Login("robot", "new")


def basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def stat(origin: ScriptedOrigin, logins: Callable[[Login | None], Login | None]) -> int | None:
    table = UpstreamTable([origin.upstream], origin.authority)
    origins = Origins(lambda: table, logins=lambda upstream, refused: logins(refused))
    try:
        return origins.of(origin.upstream).stat("team/app", DIGEST, OPERATOR, Cancellation())
    finally:
        origins.close()


def wants_a_password(good: Login) -> Callable[[Seen], Reply]:
    def answer(seen: Seen) -> Reply:
        if seen.all("Authorization") == [basic(good)]:
            return Reply(200, declared=len(CONTENT))
        return Reply(401, [("WWW-Authenticate", 'Basic realm="r"')])

    return answer


def test_a_registry_gets_the_password_that_it_asks_for() -> None:
    with scripted_origin(wants_a_password(OLD)) as origin:
        assert stat(origin, lambda refused: OLD) == len(CONTENT)


def test_a_login_that_is_refused_is_asked_for_anew_once() -> None:
    with scripted_origin(wants_a_password(NEW)) as origin:
        assert stat(origin, lambda refused: NEW if refused == OLD else OLD) == len(CONTENT)
        with pytest.raises(UpstreamError):
            stat(origin, lambda refused: None if refused == OLD else OLD)


def test_its_token_service_gets_the_password_and_the_registry_the_token() -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.startswith("/token"):
            assert seen.all("Authorization") == [basic(OLD)]
            assert "scope=repository%3Ateam%2Fapp%3Apull" in seen.target
            return Reply(body=b'{"token": "the-token"}')
        if seen.all("Authorization") == ["Bearer the-token"]:
            return Reply(200, declared=len(CONTENT))
        assert seen.all("Authorization") == [], "no password for the registry itself"
        challenge = f'Bearer realm="http://{origin.authority}/token",service="s",scope="repository:team/app:pull"'
        return Reply(401, [("WWW-Authenticate", challenge)])

    with scripted_origin(answer) as origin:
        assert stat(origin, lambda refused: OLD) == len(CONTENT)


def test_its_token_service_gets_an_identity_token_by_post_and_nobody_else_does() -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.startswith("/token"):
            assert (seen.method, seen.target, seen.all("Authorization")) == ("POST", "/token?x=1", [])
            assert seen.all("Content-Type") == ["application/x-www-form-urlencoded"]
            assert parse_qs(seen.body.decode()) == {
                "grant_type": ["refresh_token"],
                "refresh_token": ["identity&"],
                "service": ["s"],
                "scope": ["repository:team/app:pull repository:team/base:pull"],
                "client_id": ["layercast"],
            }
            return Reply(body=b'{"access_token": "the-token", "expires_in": 300}')
        if seen.all("Authorization") == ["Bearer the-token"]:
            return Reply(200, declared=len(CONTENT))
        assert seen.all("Authorization") == []
        scope = "repository:team/app:pull repository:team/base:pull"
        challenge = f'Bearer realm="http://{origin.authority}/token?x=1",service="s",scope="{scope}"'
        return Reply(401, [("WWW-Authenticate", challenge)])

    with scripted_origin(answer) as origin:
        assert stat(origin, lambda refused: Login(IDENTITY_TOKEN, "identity&")) == len(CONTENT)


def test_an_identity_token_is_no_password() -> None:
    def answer(seen: Seen) -> Reply:
        assert seen.all("Authorization") == []
        return Reply(401, [("WWW-Authenticate", 'Basic realm="r"')])

    with scripted_origin(answer) as origin, pytest.raises(UpstreamError):
        stat(origin, lambda refused: Login(IDENTITY_TOKEN, "identity"))


def test_nobody_else_is_asked_with_it() -> None:
    with scripted_origin(wants_a_password(OLD)) as origin:
        table = UpstreamTable([origin.upstream], origin.authority)
        origins = Origins(lambda: table, logins=lambda upstream, refused: OLD)
        with pytest.raises(UpstreamError):
            origins.of(origin.upstream).stat("team/app", DIGEST, ANYONE, Cancellation())
        origins.close()
        assert not [seen for seen in origin.seen if seen.all("Authorization")]
