"""Manifests: the origin is asked by HEAD with the client's own credential, and the bytes come from the cluster."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.permission import last_answers
from peer.proxy import blob_opening, manifests
from proto.ids import Digest
from proto.wire.messages import Source
from tests.unit.peer.proxy.harness import Reply, ScriptedBlob, ScriptedNode, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.peer.proxy.harness import Mirror, ScriptedOrigin

LAYER = b"layer" * 100
LAYER_DIGEST = Digest.of(LAYER)
MANIFEST = json.dumps(
    {"config": {}, "layers": [{"mediaType": "x", "digest": str(LAYER_DIGEST), "size": len(LAYER)}]}
).encode()
DIGEST = Digest.of(MANIFEST)
TYPE = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = ("Accept", TYPE)
MINE = ("Authorization", "Basic bWluZQ==")
OTHER = ("Authorization", "Basic b3RoZXI=")
TAG = "/v2/team/app/manifests/latest"
BY_DIGEST = f"/v2/team/app/manifests/{DIGEST}"
REFUSAL = Reply(401, [("WWW-Authenticate", 'Basic realm="r"')], b'{"errors":[{"code":"UNAUTHORIZED"}]}')


class Rules:
    """A registry with one manifest, by tag and digest, for the credentials that are good; `down` replaces it."""

    def __init__(self) -> None:
        self.good = {MINE[1]}
        self.down: Reply | None = None
        self.lines = [("Content-Type", TYPE), ("Docker-Content-Digest", str(DIGEST)), ("X-Own", "1")]
        self.size_bytes = len(MANIFEST)
        self.head_status = 200
        self.body = MANIFEST

    def __call__(self, seen: Seen) -> Reply:
        if self.down is not None:
            return self.down
        if not self.good.intersection(seen.all("Authorization")):
            return REFUSAL
        if seen.target == "/v2/":
            return Reply(200, body=b"{}")
        if "/blobs/" in seen.target:
            return Reply(200, [("Docker-Content-Digest", str(LAYER_DIGEST))], LAYER)
        if seen.target not in (TAG, BY_DIGEST):
            return Reply(404, body=b"{}")
        if seen.method == "HEAD":
            return Reply(self.head_status, self.lines, declared=self.size_bytes)
        return Reply(200, self.lines, self.body)


def node_with(*contents: bytes) -> ScriptedNode:
    """A node that has these, each for those alone whom the origin allows."""
    blobs = {Digest.of(content): ScriptedBlob(content) for content in contents}
    return ScriptedNode(blobs, reason="private", private=set(blobs))


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
def stored(rules: Rules) -> Iterator[tuple[ScriptedOrigin, Mirror]]:
    """The manifest and its layer are in the node's store, and answers outlast an origin that is down."""
    node = node_with(MANIFEST, LAYER)
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node, stale_s=3600.0) as mirror:
        mirror.node.known_size = lambda digest, source: None  # type: ignore[method-assign]
        yield origin, mirror


def methods(origin: ScriptedOrigin) -> list[str]:
    return [seen.method for seen in origin.seen]


# --- by digest and by tag -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [TAG, BY_DIGEST])
def test_a_manifest_comes_from_the_cluster_with_its_origins_lines(
    stored: tuple[ScriptedOrigin, Mirror], target: str
) -> None:
    origin, mirror = stored
    response, body = mirror.request(target, headers=[MINE, ACCEPT])
    assert (response.status, body) == (200, MANIFEST)
    for name, value in [*Rules().lines, ("Content-Length", str(len(MANIFEST)))]:
        assert response.getheader(name) == value
    assert response.getheader("Warning") is None
    assert methods(origin) == ["HEAD"]
    assert mirror.node.asked[0] == (DIGEST, Source(origin.authority, "team/app", manifest=True))


def test_what_a_tag_was_answered_permits_the_digest(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    assert mirror.request(TAG, method="HEAD", headers=[MINE, ACCEPT])[0].getheader("Content-Length") == str(
        len(MANIFEST)
    )
    for _ in range(3):
        assert mirror.request(BY_DIGEST, headers=[MINE, ACCEPT])[1] == MANIFEST
    assert methods(origin) == ["HEAD"]


@pytest.mark.parametrize("target", [TAG, BY_DIGEST])
def test_those_who_ask_at_once_ask_one_question(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str
) -> None:
    origin, mirror = stored
    release = threading.Event()

    def slowly(seen: Seen) -> Reply:
        release.wait(WAIT_S)
        return rules(seen)

    origin.answer = slowly
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(mirror.request, target, headers=[MINE, ACCEPT]) for _ in range(4)]
        wait_until(lambda: bool(origin.seen))
        release.set()
        assert [each.result()[1] for each in answers] == [MANIFEST] * 4
    assert methods(origin) == ["HEAD"]


def test_who_hangs_up_leaves_the_others_their_answer(stored: tuple[ScriptedOrigin, Mirror], rules: Rules) -> None:
    origin, mirror = stored
    release = threading.Event()

    def slowly(seen: Seen) -> Reply:
        release.wait(WAIT_S)
        return rules(seen)

    origin.answer = slowly
    with ThreadPoolExecutor(1) as pool:
        with mirror.connect() as first:
            lines = "".join(f"{name}: {value}\r\n" for name, value in (MINE, ACCEPT))
            first.sendall(f"GET {TAG} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
            wait_until(lambda: len(origin.seen) == 1)
            second = pool.submit(mirror.request, TAG, headers=[MINE, ACCEPT])
        wait_until(lambda: mirror.counted("layercast_requests_total", kind="manifest", status="499") == 1)
        release.set()
        assert second.result()[1] == MANIFEST


def test_a_tag_is_asked_for_each_accept_and_each_credential(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules
) -> None:
    origin, mirror = stored
    rules.good.add(OTHER[1])
    for headers in ([MINE, ACCEPT], [OTHER, ACCEPT], [MINE, ACCEPT, ("Accept", "*/*")]):
        assert mirror.request(TAG, headers=headers)[1] == MANIFEST
    assert methods(origin) == ["HEAD"] * 3


def test_another_type_is_accepted_by_the_origin_alone(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    mirror.request(BY_DIGEST, headers=[MINE, ACCEPT])
    mirror.request(BY_DIGEST, headers=[MINE, ("Accept", "*/*")])
    assert methods(origin) == ["HEAD", "HEAD"]
    assert origin.seen[1].all("Accept") == ["*/*"]


def test_who_accepts_the_type_is_not_answered_for_one_who_does_not(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules
) -> None:
    origin, mirror = stored
    release = threading.Event()

    def by_accept(seen: Seen) -> Reply:
        release.wait(WAIT_S)
        return rules(seen) if seen.all("Accept") == [TYPE] else Reply(404)

    origin.answer = by_accept
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(mirror.request, BY_DIGEST, method="HEAD", headers=[MINE, ("Accept", "*/*")])
        wait_until(lambda: len(origin.seen) == 1)
        second = pool.submit(mirror.request, BY_DIGEST, method="HEAD", headers=[MINE, ACCEPT])
        wait_until(lambda: len(origin.seen) == 2)
        release.set()
        assert [each.result()[0].status for each in (first, second)] == [404, 200]


def test_a_question_that_would_take_much_to_remember_is_passed_on(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    long = ("Accept", ", ".join([TYPE] * 100))
    for _ in range(2):
        assert mirror.request(TAG, headers=[MINE, long])[1] == MANIFEST
    assert methods(origin) == ["GET", "GET"]


@pytest.mark.parametrize("headers", [[], [OTHER]])
@pytest.mark.parametrize("target", [TAG, BY_DIGEST])
def test_who_is_refused_gets_the_origins_own_answer(
    stored: tuple[ScriptedOrigin, Mirror], headers: list[tuple[str, str]], target: str
) -> None:
    _, mirror = stored
    assert mirror.request(target, headers=[MINE, ACCEPT])[1] == MANIFEST
    response, body = mirror.request(target, headers=[*headers, ACCEPT])
    assert (response.status, body) == (401, REFUSAL.body)
    assert response.getheader("WWW-Authenticate") == 'Basic realm="r"'


def test_a_credential_of_one_repository_opens_nothing_under_another(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    _, mirror = stored
    assert mirror.request(BY_DIGEST, headers=[MINE, ACCEPT])[1] == MANIFEST
    response, body = mirror.request(BY_DIGEST.replace("app", "other"), headers=[MINE, ACCEPT])
    assert (response.status, body) == (404, b"{}")


def test_it_permits_the_layers_that_are_proven_to_be_there(stored: tuple[ScriptedOrigin, Mirror], rules: Rules) -> None:
    origin, mirror = stored
    rules.good.add(OTHER[1])
    layer = f"/v2/team/app/blobs/{LAYER_DIGEST}"
    assert mirror.request(layer, headers=[OTHER])[1] == LAYER  # which proves it
    mirror.request(TAG, headers=[MINE, ACCEPT])
    before = len(origin.seen)
    assert mirror.request(layer, headers=[MINE])[1] == LAYER
    assert len(origin.seen) == before


def test_a_manifest_is_no_blob_of_its_repository(stored: tuple[ScriptedOrigin, Mirror], rules: Rules) -> None:
    _, mirror = stored
    assert mirror.request(TAG, headers=[MINE, ACCEPT])[1] == MANIFEST
    rules.good.clear()
    assert mirror.request(f"/v2/team/app/blobs/{DIGEST}", headers=[MINE])[0].status == 401


def test_a_tag_that_was_pushed_through_here_is_asked_anew(stored: tuple[ScriptedOrigin, Mirror]) -> None:
    origin, mirror = stored
    mirror.request(TAG, headers=[MINE, ACCEPT])
    mirror.request(TAG, method="PUT", headers=[MINE, ("Content-Length", "2")], body=b"{}")
    mirror.request(TAG, headers=[MINE, ACCEPT])
    # This registry notes no PUT.
    assert methods(origin) == ["HEAD", "HEAD"]


# --- origins that HEAD does not help with ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["no digest", "other digest", "no length", "too large", "405", "500"])
def test_where_a_head_says_too_little_the_clients_own_request_is_passed_on(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, change: str
) -> None:
    origin, mirror = stored
    if change == "no digest":
        del rules.lines[1]
    elif change == "other digest":
        rules.lines[1] = ("Docker-Content-Digest", str(LAYER_DIGEST))
    elif change == "too large":
        rules.size_bytes = 5 << 20
    elif change == "no length":
        rules.size_bytes = 0
    else:
        rules.head_status = int(change)
    response, body = mirror.request(BY_DIGEST, headers=[MINE, ACCEPT])
    assert (response.status, body) == (200, MANIFEST)
    assert methods(origin) == ["HEAD", "GET"]


def test_what_the_cluster_cannot_give_is_asked_of_the_origin(rules: Rules) -> None:
    with scripted_origin(rules) as origin, running_mirror(origin.upstream) as mirror:
        assert mirror.request(TAG, headers=[MINE, ACCEPT])[1] == MANIFEST
        assert methods(origin) == ["HEAD", "GET"]
        assert mirror.counted("layercast_manifests_total", **{"from": "origin"}) == 1


def test_bytes_that_do_not_match_are_given_to_nobody(rules: Rules) -> None:
    node = node_with(MANIFEST)
    blob = node.blobs[DIGEST]
    blob.file.seek(0)
    blob.file.write(b"X")
    blob.file.flush()
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node) as mirror:
        assert mirror.request(TAG, headers=[MINE, ACCEPT])[1] == MANIFEST
        assert methods(origin) == ["HEAD", "GET"]
        # So that it comes anew.
        assert blob.checked == [1]


@pytest.mark.parametrize("extra", [("If-None-Match", '"x"'), ("Range", "bytes=0-1")])
def test_what_has_a_condition_is_the_origins_to_answer(
    stored: tuple[ScriptedOrigin, Mirror], extra: tuple[str, str]
) -> None:
    origin, mirror = stored
    mirror.request(TAG, headers=[MINE, ACCEPT, extra])
    assert methods(origin) == ["GET"]


# --- while the origin is down -----------------------------------------------------------------------------------------


def warnings(mirror: Mirror, target: str, *headers: tuple[str, str]) -> tuple[int, bytes, str]:
    response, body = mirror.request(target, headers=[*headers, ACCEPT])
    return response.status, body, response.getheader("Warning") or ""


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("target", ["/v2/", TAG, BY_DIGEST, f"/v2/team/app/blobs/{LAYER_DIGEST}"])
def test_while_the_origin_is_down_its_last_answer_stands(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str, status: int
) -> None:
    _, mirror = stored
    up = warnings(mirror, target, MINE)
    assert (up[0], up[2]) == (200, "")
    mirror.pass_time()
    rules.down = Reply(status, body=b"trouble")
    for _ in range(2):
        assert warnings(mirror, target, MINE)[:2] == up[:2]
        assert "110 layercast" in warnings(mirror, target, MINE)[2]
    rules.down = None
    mirror.pass_time()
    assert warnings(mirror, target, MINE) == up


@pytest.mark.parametrize("target", ["/v2/", TAG, BY_DIGEST, f"/v2/team/app/blobs/{LAYER_DIGEST}"])
@pytest.mark.parametrize("headers", [[], [OTHER]])
def test_it_stands_for_nobody_else(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str, headers: list[tuple[str, str]]
) -> None:
    _, mirror = stored
    warnings(mirror, target, MINE)
    mirror.pass_time()
    rules.down = Reply(503, body=b"trouble")
    assert warnings(mirror, target, *headers)[0] == 503


@pytest.mark.parametrize("target", [TAG, BY_DIGEST, f"/v2/team/app/blobs/{LAYER_DIGEST}"])
def test_whom_the_origin_refused_since_has_nothing_when_it_is_down(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str
) -> None:
    _, mirror = stored
    assert warnings(mirror, target, MINE)[0] == 200
    mirror.pass_time()
    rules.good.clear()
    assert warnings(mirror, target, MINE)[0] == 401
    rules.down = Reply(503, body=b"trouble")
    assert warnings(mirror, target, MINE)[0] == 503


@pytest.mark.parametrize("status", [401, 403, 404, 429, 501])
def test_a_refusal_is_no_outage(stored: tuple[ScriptedOrigin, Mirror], rules: Rules, status: int) -> None:
    _, mirror = stored
    warnings(mirror, TAG, MINE)
    mirror.pass_time()
    rules.down = Reply(status, body=b"no")
    assert warnings(mirror, TAG, MINE) == (status, b"no", "")


@pytest.mark.parametrize("target", ["/v2/", TAG, BY_DIGEST, f"/v2/team/app/blobs/{LAYER_DIGEST}"])
def test_an_origin_that_says_nothing_is_down(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, mirror = stored
    up = warnings(mirror, target, MINE)
    mirror.pass_time()
    for module in (manifests, blob_opening):
        monkeypatch.setattr(module, "DOWN_AFTER_S", 0.2)
    monkeypatch.setattr(last_answers, "DOWN_S", WAIT_S)
    release = threading.Event()

    def silent(seen: Seen) -> Reply:
        release.wait(WAIT_S)
        return rules(seen)

    origin.answer = silent
    before = len(origin.seen)
    try:
        assert warnings(mirror, target, MINE)[:2] == up[:2]
        # What was asked may come there when it is waited for no more.
        wait_until(lambda: len(origin.seen) > before)
        asked = len(origin.seen)
        # For a while it is not asked again.
        assert "111 layercast" in warnings(mirror, target, MINE)[2]
        assert len(origin.seen) == asked
    finally:
        release.set()


@pytest.mark.parametrize(("target", "status"), [(TAG, 200), (BY_DIGEST, 503)])
def test_what_the_client_takes_counts_then_too(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules, target: str, status: int
) -> None:
    _, mirror = stored
    anything = [MINE, ("Accept", "*/*")]
    assert mirror.request(target, headers=anything)[1] == MANIFEST
    mirror.pass_time()
    rules.down = Reply(503)
    assert mirror.request(target, headers=anything)[0].status == status


def test_what_no_supernode_can_say_either_is_given_to_whom_it_was_given(
    stored: tuple[ScriptedOrigin, Mirror], rules: Rules
) -> None:
    _, mirror = stored
    layer = f"/v2/team/app/blobs/{LAYER_DIGEST}"
    assert warnings(mirror, layer, MINE)[1] == LAYER
    mirror.pass_time()
    mirror.node.reason = "unavailable"
    rules.down = Reply(503)
    assert warnings(mirror, layer, MINE)[1] == LAYER
    rules.down = None
    rules.good.clear()
    mirror.pass_time()
    assert warnings(mirror, layer, MINE)[0] == 401


def test_without_the_setting_an_outage_is_told(rules: Rules) -> None:
    with scripted_origin(rules) as origin, running_mirror(origin.upstream, node=node_with(MANIFEST)) as mirror:
        assert warnings(mirror, TAG, MINE)[0] == 200
        mirror.pass_time()
        rules.down = Reply(503, body=b"trouble")
        assert warnings(mirror, TAG, MINE)[:2] == (503, b"trouble")


def test_it_is_counted(stored: tuple[ScriptedOrigin, Mirror], rules: Rules) -> None:
    _, mirror = stored
    warnings(mirror, TAG, MINE)
    mirror.pass_time()
    rules.down = Reply(503)
    warnings(mirror, TAG, MINE)
    wait_until(lambda: mirror.counted("layercast_stale_answers_total", kind="manifest") == 1)
