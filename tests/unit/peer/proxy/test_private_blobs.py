"""Blobs that are given to those alone whom their origin allows, though they are here."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest
from tests.unit.peer.proxy.harness import Reply, ScriptedBlob, ScriptedNode, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.peer.proxy.harness import Mirror, ScriptedOrigin

CONTENT = random.Random(3).randbytes(100_000)
DIGEST = Digest.of(CONTENT)
PATH = f"/v2/team/app/blobs/{DIGEST}"
MINE = ("Authorization", "Bearer mine")
CHALLENGE = 'Bearer realm="https://auth.example/token",service="s",scope="repository:team/app:pull"'
REFUSAL = Reply(401, [("WWW-Authenticate", CHALLENGE)], b'{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}')


class Rules:
    """What the scripted origin gives: the blob and one manifest in team/app, to the tokens that are good."""

    def __init__(self) -> None:
        self.good = {"Bearer mine"}
        self.head = self.blob_head
        self.manifest = json.dumps(
            {"config": {}, "layers": [{"mediaType": "x", "digest": str(DIGEST), "size": len(CONTENT)}]}
        ).encode()

    def __call__(self, seen: Seen) -> Reply:
        if not self.good.intersection(seen.all("Authorization")) and not seen.target.startswith("/cdn"):
            return REFUSAL
        if "/manifests/" in seen.target:
            return Reply(200, body=self.manifest)
        if not seen.target.startswith(("/v2/team/app/", "/cdn")):
            return Reply(404, body=b"{}")
        if seen.method == "HEAD":
            return self.head(seen)
        if seen.all("Range") == ["bytes=0-0"]:
            return Reply(206, [("Content-Range", f"bytes 0-0/{len(CONTENT)}")], CONTENT[:1])
        return Reply(200, body=CONTENT)

    def blob_head(self, seen: Seen) -> Reply:
        assert seen.method == "HEAD"
        return Reply(200, [("Docker-Content-Digest", str(DIGEST))], declared=len(CONTENT))


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
def stored(rules: Rules) -> Iterator[tuple[ScriptedOrigin, Mirror]]:
    """The blob is in the node's store, and private."""
    node = ScriptedNode({DIGEST: ScriptedBlob(CONTENT)}, reason="private", private={DIGEST})
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node) as mirror:
        yield origin, mirror


def bodies_given(origin: ScriptedOrigin) -> int:
    """Requests for the whole blob that the origin got."""
    return sum(seen.method == "GET" and "/blobs/" in seen.target and not seen.all("Range") for seen in origin.seen)


def test_whom_the_origin_allows_has_it_from_the_store(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    response, body = mirror.request(PATH, headers=[MINE, ("Accept", "application/octet-stream")])
    assert (response.status, body) == (200, CONTENT)
    [asked] = origin.seen
    assert (asked.method, asked.all("Authorization")) == ("HEAD", ["Bearer mine"])
    assert asked.all("Accept") == ["application/octet-stream"]


def test_what_was_allowed_is_not_asked_again(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    for _ in range(3):
        assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    assert len(origin.seen) == 1


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer another")], [("Authorization", "Basic bWluZQ==")]])
def test_who_is_refused_gets_the_origins_own_answer(
    stored: tuple[ScriptedOrigin, Mirror], headers: list[tuple[str, str]]
) -> None:
    origin, mirror = stored
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    response, body = mirror.request(PATH, headers=headers)
    assert (response.status, body) == (401, REFUSAL.body)
    assert response.getheader("WWW-Authenticate") == CHALLENGE
    # The client's own request, as it came.
    assert (origin.seen[-1].method, origin.seen[-1].all("Authorization")) == ("GET", [value for _, value in headers])


def test_a_credential_that_is_for_the_next_hop_alone_is_none(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    response, body = mirror.request(PATH, headers=[MINE, ("Connection", "authorization")])
    assert (response.status, body) == (401, REFUSAL.body)
    assert not any(seen.all("Authorization") for seen in origin.seen)


def test_a_token_for_one_repository_opens_nothing_under_another(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    _, mirror = stored
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    response, body = mirror.request(PATH.replace("team/app", "team/other"), headers=[MINE])
    assert (response.status, body) == (404, b"{}")


def test_a_manifest_permits_what_is_proven_to_be_there(stored: tuple[ScriptedOrigin, Mirror], rules: Rules) -> None:
    origin, mirror = stored
    rules.good.add("Bearer another")
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT  # which proves it
    another = ("Authorization", "Bearer another")
    mirror.request("/v2/team/app/manifests/latest", headers=[another])
    before = len(origin.seen)
    assert mirror.request(PATH, headers=[another])[1] == CONTENT
    assert len(origin.seen) == before


def test_a_manifest_alone_opens_nothing_that_is_here(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    target = "/v2/team/other/manifests/latest"  # it lists what is not in that repository
    assert mirror.request(target, headers=[MINE])[0].status == 200
    response, _ = mirror.request(PATH.replace("team/app", "team/other"), headers=[MINE])
    assert response.status == 404
    assert bodies_given(origin) == 1  # the request that was replayed


def test_a_head_that_the_client_sent_itself_is_a_permission(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    mirror.node.blobs[DIGEST].complete = True
    provider_knows_no_size(mirror)
    assert mirror.request(PATH, method="HEAD", headers=[MINE])[0].status == 200
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    assert [seen.method for seen in origin.seen] == ["HEAD"]


def provider_knows_no_size(mirror: Mirror) -> None:
    """As it is for a private blob."""
    mirror.node.known_size = lambda digest, source: None  # type: ignore[method-assign]


@pytest.mark.parametrize("status", [405, 401, 403])
def test_a_head_is_a_hint_and_one_byte_decides(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, status: int
) -> None:
    origin, mirror = stored
    rules.head = lambda seen: Reply(status)
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    assert bodies_given(origin) == 0


def test_a_redirect_allows_what_it_leads_to_without_the_credential(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules
) -> None:
    origin, mirror = stored
    origin.answer = redirecting(rules, f"http://{origin.authority}/cdn/blob")
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
    assert [(seen.method, seen.target.split("/")[1]) for seen in origin.seen] == [
        ("HEAD", "v2"), ("GET", "v2"), ("GET", "cdn"),
    ]  # fmt: skip


def redirecting(rules: Rules, location: str) -> Callable[[Seen], Reply]:
    """Blobs are elsewhere."""

    def answer(seen: Seen) -> Reply:
        reply = rules(seen)
        is_blob = seen.target.startswith("/v2/") and reply.status in (200, 206)
        return Reply(307, [("Location", location)]) if is_blob else reply

    return answer


def test_an_origin_that_cannot_say_is_closed(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    origin.answer = lambda seen: Reply(503, body=b"down")
    response, body = mirror.request(PATH, headers=[MINE])
    assert (response.status, CONTENT[:64] in body) == (503, False)


def test_who_reads_ranges_of_what_is_not_here_costs_the_origin_no_second_head(rules: Rules) -> None:
    node = ScriptedNode({}, reason="private")
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node) as mirror:
        for _ in range(2):
            response, _ = mirror.request(PATH, headers=[MINE, ("Range", "bytes=0-9,100-109")])
            assert response.status == 206
        assert [seen.method for seen in origin.seen] == ["HEAD", "GET", "GET"]


def test_what_is_not_here_is_opened_for_whom_a_manifest_lists_it(rules: Rules) -> None:
    node = ScriptedNode({DIGEST: ScriptedBlob(CONTENT)})
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node) as mirror:
        mirror.request("/v2/team/app/manifests/latest", headers=[MINE])
        assert mirror.request(PATH, headers=[MINE])[1] == CONTENT
        [allowed] = node.allowed
        assert (allowed.size_bytes, allowed.proven, allowed.caller.authorization) == (len(CONTENT), False, MINE[1])
        assert not [seen for seen in origin.seen if "/blobs/" in seen.target]


@pytest.mark.parametrize("target", [PATH, "/v2/team/app/manifests/latest"])
def test_what_a_query_was_given_is_given_to_nobody_without_it(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str
) -> None:
    origin, mirror = stored
    assert mirror.request(PATH, headers=[MINE])[1] == CONTENT  # which proves it
    provider_knows_no_size(mirror)
    origin.answer = lambda seen: signed(rules, seen)
    method = "HEAD" if target == PATH else "GET"
    assert mirror.request(f"{target}?signature=good", method=method)[0].status == 200
    assert mirror.request(PATH)[0].status == 401


def signed(rules: Rules, seen: Seen) -> Reply:
    """The origin gives what a signed query asks for to whoever has it."""
    path, _, query = seen.target.partition("?")
    lines = [*seen.lines, MINE] if query == "signature=good" else seen.lines
    return rules(Seen(seen.method, path, lines))


def test_of_two_credentials_none_is_answered_for_the_other(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    provider_knows_no_size(mirror)
    bad = ("Authorization", "Bearer another")
    assert mirror.request(PATH, method="HEAD", headers=[bad, MINE])[0].status == 401
    assert origin.seen[-1].all("Authorization") == ["Bearer another"]
    assert mirror.request(PATH, headers=[bad])[0].status == 401
