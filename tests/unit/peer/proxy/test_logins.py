"""Logins by prefix: each goes to the realm of its own registry, with that registry's scopes, and to no other."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from peer.proxy import logins
from peer.proxy.logins import NOBODY
from proto.oci.routes import HOP_HEADER
from proto.oci.www_authenticate import parse_challenges
from tests.unit.peer.proxy.harness import Mirror, Reply, ScriptedOrigin, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proto.oci.upstreams import UpstreamConfig

MARK = ("Docker-Distribution-Api-Version", "registry/2.0")


def basic(user: str, password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


@dataclass
class StrictRegistry:
    """A registry with a realm at another server, which refuses scopes that it does not know, as ghcr.io does."""

    name: str
    repository: str
    scheme: str = "bearer"
    registry: ScriptedOrigin = field(init=False)
    realm: ScriptedOrigin = field(init=False)

    def answer(self, seen: Seen) -> Reply:
        wanted = {"bearer": f"Bearer {self.name}", "basic": basic("user", self.name)[1], "none": None}[self.scheme]
        if wanted is None or seen.all("Authorization") == [wanted]:
            return Reply(body=self.name.encode())
        challenge = f'Bearer realm="http://{self.realm.authority}/auth?x=1",service="{self.name}"'
        line = 'Basic realm="r"' if self.scheme == "basic" else challenge
        return Reply(401, [("WWW-Authenticate", line)], b"{}")

    def grant(self, seen: Seen) -> Reply:
        scopes = parse_qs(seen.body.decode() or urlsplit(seen.target).query).get("scope", [])
        if scopes != [f"repository:{self.repository}:pull"]:
            return Reply(403, body=b'{"errors":[{"code":"DENIED"}]}')
        if seen.all("Authorization") not in ([], [basic("user", self.name)[1]]):
            return Reply(401, [("WWW-Authenticate", 'Basic realm="r"')], b"wrong password")
        return Reply(body=json.dumps({"token": self.name, "expires_in": 60}).encode())

    @property
    def upstream(self) -> UpstreamConfig:
        return replace(self.registry.upstream, redirect_hosts=(self.realm.authority,))

    @property
    def host(self) -> str:
        return self.registry.authority


@contextlib.contextmanager
def mirror_of(*registries: StrictRegistry) -> Iterator[Mirror]:
    """The first is the default one."""
    with contextlib.ExitStack() as running:
        for each in registries:
            each.registry = running.enter_context(scripted_origin(each.answer))
            each.realm = running.enter_context(scripted_origin(each.grant))
        yield running.enter_context(running_mirror(*(each.upstream for each in registries)))


def log_in(mirror: Mirror, scopes: Sequence[str], *headers: tuple[str, str]) -> tuple[int, dict[str, Any]]:
    query = "&".join(["account=user", *(f"scope={scope}" for scope in scopes), "service=layercast"])
    response, body = mirror.request(f"/token?{query}", headers=headers)
    return response.status, json.loads(body) if response.status == 200 else {}


def pull(mirror: Mirror, registry: StrictRegistry, token: str) -> tuple[int, bytes]:
    target = f"/v2/{registry.host}/{registry.repository}/manifests/1"
    response, body = mirror.request(target, headers=[("Authorization", f"Bearer {token}"), MARK])
    return response.status, body


def test_each_login_goes_to_its_own_registrys_realm_with_its_own_scope() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        ping, _ = mirror.request("/v2/", headers=[MARK])
        challenge = f'Bearer realm="http://127.0.0.1:{mirror.port}/token",service="layercast"'
        assert (ping.status, ping.getheader("WWW-Authenticate")) == (401, challenge)
        for registry in (two, one):
            scope = f"repository:{registry.host}/{registry.repository}:pull"
            status, answer = log_in(mirror, [scope], basic("user", registry.name))
            assert (status, answer["token"]) == (200, registry.name)
            assert pull(mirror, registry, answer["token"]) == (200, registry.name.encode())
        for registry in (one, two):
            assert [seen.all("Authorization") for seen in registry.realm.seen] == [[basic("user", registry.name)[1]]]
            (asked,) = (parse_qs(urlsplit(seen.target).query) for seen in registry.realm.seen)
            assert asked == {
                "x": ["1"],
                "account": ["user"],
                "service": [registry.name],
                "scope": [f"repository:{registry.repository}:pull"],
            }


@pytest.mark.parametrize("mark", [MARK, ("User-Agent", "crane/1 go-containerregistry/v0.22.1")])
def test_who_asks_the_root_for_all_registries_is_sent_to_the_realm_here(mark: tuple[str, str]) -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        ping, _ = mirror.request("/v2/", headers=[mark])
        assert f'realm="http://127.0.0.1:{mirror.port}/token"' in (ping.getheader("WWW-Authenticate") or "")
        other, _ = mirror.request("/v2/", headers=[("User-Agent", "docker/20.10.24")])
        assert f'realm="http://{one.realm.authority}/auth?x=1"' in (other.getheader("WWW-Authenticate") or "")


@pytest.mark.parametrize("kind", ["manifests/1", f"blobs/sha256:{'0' * 64}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_names_its_registry_in_the_path_is_challenged_by_the_realm_here(method: str, kind: str) -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        target, refused = f"/v2/{two.host}/team/tool/{kind}", ("Authorization", "Bearer of-yesterday")
        answer, _ = mirror.request(target, method=method, headers=[refused])
        (challenge,) = parse_challenges([answer.getheader("WWW-Authenticate") or ""])
        scope = f"repository:{two.host}/team/tool:pull"
        realm = f"http://127.0.0.1:{mirror.port}/token"
        told = {"realm": realm, "service": "layercast", "scope": scope, "error": "insufficient_scope"}
        assert (answer.status, challenge.parameters) == (401, told)
        # As oras asks: for what it was told, and for what it was going to say.
        assert log_in(mirror, [scope, scope], basic("user", "two"))[1]["token"] == "two"


def test_who_names_its_registry_otherwise_gets_its_own_challenge() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        answer, _ = mirror.request(f"/v2/team/tool/manifests/1?ns={two.host}")
        assert f'realm="http://{two.realm.authority}/auth?x=1"' in (answer.getheader("WWW-Authenticate") or "")


def test_a_repository_without_a_prefix_is_the_default_registrys() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        assert log_in(mirror, ["repository:org/app:pull"])[1]["token"] == "one"
        assert two.realm.seen == two.registry.seen == []


def test_a_scope_of_another_registry_beside_the_first_is_not_shown_to_it() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        # As podman asks after `insufficient_scope`: its own scope, and the one that it was told.
        scopes = [f"repository:{two.host}/team/tool:pull", "repository:team/tool:pull"]
        assert log_in(mirror, scopes, basic("user", "two"))[1]["token"] == "two"
        assert one.realm.seen == []


def test_a_wrong_password_is_refused_in_the_realms_words() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        scope = f"repository:{two.host}/team/tool:pull"
        response, body = mirror.request(f"/token?scope={scope}", headers=[basic("user", "wrong")])
        assert (response.status, body) == (401, b"wrong password")


def test_a_registry_that_wants_a_password_gets_it_and_no_other_registry_does() -> None:
    one, two = StrictRegistry("one", "org/app", "basic"), StrictRegistry("two", "team/tool", "basic")
    with mirror_of(one, two) as mirror:
        token = log_in(mirror, [f"repository:{two.host}/team/tool:pull"], basic("user", "two"))[1]["token"]
        assert "two" not in token
        assert basic("user", "two")[1].removeprefix("Basic ") not in token
        assert pull(mirror, two, token) == (200, b"two")
        assert pull(mirror, one, token)[0] == 401
        assert all(seen.all("Authorization") == [] for seen in one.registry.seen)


@pytest.mark.parametrize("token", ["lc.none", "lc.", "lc.AAAA", "lc.!!!", "lc." + "A" * 100])
def test_a_token_of_ours_that_opens_nothing_is_sent_to_nobody(token: str) -> None:
    one = StrictRegistry("one", "org/app", "none")
    with mirror_of(one) as mirror:
        assert pull(mirror, one, token) == (200, b"one")
        assert all(seen.all("Authorization") == [] for seen in one.registry.seen)


def test_a_sealed_password_is_good_no_longer_than_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_LIFE_S", -logins._LATE_S)
    one = StrictRegistry("one", "org/app", "basic")
    with mirror_of(one) as mirror:
        token = log_in(mirror, ["repository:org/app:pull"], basic("user", "one"))[1]["token"]
        assert pull(mirror, one, token)[0] == 401
        assert all(seen.all("Authorization") == [] for seen in one.registry.seen)


def test_a_registry_that_is_in_trouble_is_not_taken_for_one_that_wants_no_login() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        one.registry.answer = lambda _: Reply(503)
        scopes = ["repository:org/app:pull"]
        assert log_in(mirror, scopes, basic("user", "one"))[0] == 503
        one.registry.answer = one.answer
        assert log_in(mirror, scopes, basic("user", "one"))[1]["token"] == "one"


def test_a_realms_answer_that_is_compressed_says_so_and_when_to_come_again_is_passed_on() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        answer = gzip.compress(b'{"token":"one"}')
        one.realm.answer = lambda _: Reply(429, [("Content-Encoding", "gzip"), ("Retry-After", "7")], answer)
        lines = [("Accept-Encoding", "gzip")]
        response, body = mirror.request("/token?scope=repository:org/app:pull", headers=lines)
        assert (response.status, gzip.decompress(body)) == (429, b'{"token":"one"}')
        assert (response.getheader("Content-Encoding"), response.getheader("Retry-After")) == ("gzip", "7")


def test_a_form_that_is_too_long_is_refused_and_not_cut() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        form = f"scope=repository:org/app:pull&password={'x' * 70_000}".encode()
        lines = [("Content-Length", str(len(form)))]
        assert mirror.request("/token", method="POST", headers=lines, body=form)[0].status == 400
        assert one.realm.seen == []


def test_a_login_that_leads_back_here_ends() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        lines = [(HOP_HEADER, "1")]
        assert mirror.request("/token?scope=repository:org/app:pull", headers=lines)[0].status == 508
        assert one.realm.seen == []


def test_a_registry_that_wants_no_login_is_asked_without() -> None:
    one = StrictRegistry("one", "org/app", "none")
    with mirror_of(one) as mirror:
        status, answer = log_in(mirror, ["repository:org/app:pull"], basic("user", "x"))
        assert (status, answer["token"]) == (200, NOBODY)
        assert one.realm.seen == []


def test_a_login_without_a_repository_shows_its_password_to_nobody() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        for scopes in ([], ["registry:catalog:*"]):
            assert log_in(mirror, scopes, basic("user", "secret"))[1]["token"] == NOBODY
        assert mirror.request("/v2/", headers=[MARK, ("Authorization", f"Bearer {NOBODY}")])[0].status == 200
        assert one.realm.seen == one.registry.seen == []


def test_any_other_client_and_any_named_registry_gets_the_registrys_own_challenge() -> None:
    one, two = StrictRegistry("one", "org/app"), StrictRegistry("two", "team/tool")
    with mirror_of(one, two) as mirror:
        for target, lines, registry in (
            ("/v2/", [], one),
            (f"/v2/?ns={two.host}", [MARK], two),
            (f"/v2/{two.host}/", [MARK], two),
        ):
            response, _ = mirror.request(target, headers=lines)
            challenge = f'Bearer realm="http://{registry.realm.authority}/auth?x=1",service="{registry.name}"'
            assert (response.status, response.getheader("WWW-Authenticate")) == (401, challenge)


def test_a_refresh_token_goes_to_its_realm_by_post() -> None:
    one = StrictRegistry("one", "org/app")
    with mirror_of(one) as mirror:
        form = "grant_type=refresh_token&refresh_token=r&client_id=c&service=layercast"
        form += f"&scope=repository:{one.host}/org/app:pull"
        lines = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(form)))]
        response, _ = mirror.request("/token", method="POST", headers=lines, body=form.encode())
        assert response.status == 200
        forms = [parse_qs(seen.body.decode()) for seen in one.realm.seen]
    assert forms == [
        {
            "grant_type": ["refresh_token"],
            "refresh_token": ["r"],
            "client_id": ["c"],
            "service": ["one"],
            "scope": ["repository:org/app:pull"],
        }
    ]


@pytest.mark.parametrize(
    ("scope", "status"),
    [("repository:not.allowed.test:5000/app:pull", 404), ("repository:UPPER:pull", 400), ("repository:a//b:pull", 400)],
)
def test_a_scope_of_no_registry_of_ours_is_refused(scope: str, status: int) -> None:
    with mirror_of(StrictRegistry("one", "org/app")) as mirror:
        assert mirror.request(f"/token?scope={scope}", headers=[basic("user", "x")])[0].status == status


def test_a_web_page_cannot_log_in() -> None:
    with mirror_of(StrictRegistry("one", "org/app")) as mirror:
        lines = [("Origin", "https://evil.example.com")]
        assert mirror.request("/token?scope=repository:org/app:pull", headers=lines)[0].status == 405
        assert mirror.request("/token", method="PUT")[0].status == 405
