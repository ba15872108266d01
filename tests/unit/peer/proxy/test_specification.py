"""What the distribution specification, HTTP and a browser's neighbours ask of a mirror, beside blobs and manifests."""

from __future__ import annotations

import json

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig
from tests.unit.peer.proxy.harness import (
    Mirror,
    Reply,
    ScriptedBlob,
    ScriptedNode,
    Seen,
    running_mirror,
    scripted_origin,
)

CONTENT = b"the blob" * 1000
DIGEST = Digest.of(CONTENT)
TARGET = f"/v2/a/blobs/{DIGEST}"


def not_found(_: Seen) -> Reply:
    return Reply(404, [("Server", "nginx"), ("X-Own", "1")], b'{"errors":[]}')


@pytest.mark.parametrize("target", ["/v2/a/manifests/-dash", "/v2/a/blobs/sha256:zz", "/v2/_catalog?n=5&last=b"])
def test_what_only_the_registry_can_judge_it_is_asked(target: str) -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request(target)
    assert (response.status, response.getheader("X-Own")) == (404, "1")
    assert [seen.target for seen in origin.seen] == [target]


def test_a_repository_whose_first_part_looks_like_a_host_is_asked_of_the_operators_default() -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        mirror.request("/v2/my.org/app/manifests/latest")
    assert {seen.target for seen in origin.seen} == {"/v2/my.org/app/manifests/latest"}


def test_such_a_name_is_never_told_to_a_default_that_nobody_chose() -> None:
    with scripted_origin(not_found) as origin:
        public = UpstreamConfig(origin.authority, f"http://{origin.authority}")
        with running_mirror(public) as mirror:
            assert mirror.request("/v2/my.org/app/manifests/latest")[0].status == 404
    assert not origin.seen


@pytest.mark.parametrize("named", [f'"{DIGEST}"', f'W/"x", "{DIGEST}"', "*"])
@pytest.mark.parametrize("shared", [True, False])
def test_who_has_the_blob_already_is_told_so(named: str, *, shared: bool) -> None:
    node = ScriptedNode({DIGEST: ScriptedBlob(CONTENT)} if shared else {})
    with (
        scripted_origin(lambda seen: Reply(200, body=CONTENT)) as origin,
        running_mirror(origin.upstream, node=node) as mirror,
    ):
        response, body = mirror.request(TARGET, headers=[("If-None-Match", named)])
        assert (response.status, body) == (304, b"")
        assert response.getheader("ETag") == f'"{DIGEST}"'
        other, body = mirror.request(TARGET, headers=[("If-None-Match", '"other"')])
        assert (other.status, body) == (200, CONTENT)


def test_a_range_meant_for_other_content_is_left_alone() -> None:
    with scripted_origin(lambda seen: Reply(200, body=CONTENT)) as origin, running_mirror(origin.upstream) as mirror:
        lines = [("Range", "bytes=0-1"), ("If-Range", '"other"')]
        assert mirror.request(TARGET, headers=lines)[0].status == 200
        assert mirror.request(TARGET, headers=[lines[0], ("If-Range", f'"{DIGEST}"')])[0].status == 206


def test_a_digest_that_nobody_checks_here_passes_through() -> None:
    with scripted_origin(lambda seen: Reply(200, body=CONTENT)) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/a/blobs/sha384:00ff")
    assert (response.status, body) == (200, CONTENT)
    assert mirror.node.asked == []


def test_a_suffix_of_a_blob_whose_size_nobody_tells_is_the_whole_blob() -> None:
    untold = Reply(200, body=CONTENT, declared=None)
    with scripted_origin(lambda seen: untold) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request(TARGET, headers=[("Range", "bytes=-5")])
    assert (response.status, body) == (200, CONTENT)


def test_what_a_client_says_of_itself_is_said_for_blobs_too() -> None:
    def gated(seen: Seen) -> Reply:
        return Reply(200, body=CONTENT) if seen.all("X-Gate") == ["open"] else Reply(403)

    lines = [("User-Agent", "docker/20"), ("X-Gate", "open"), ("Accept", "a/b"), ("Accept", "c/d")]
    with scripted_origin(gated) as origin, running_mirror(origin.upstream) as mirror:
        assert mirror.request(TARGET, headers=lines)[1] == CONTENT
    assert origin.seen[0].all("User-Agent") == ["docker/20"]
    assert origin.seen[0].all("Accept") == ["a/b", "c/d"]


def test_a_blobs_refusal_keeps_every_header_of_the_origins() -> None:
    limits = [("RateLimit-Limit", "100;w=21600"), ("Retry-After", "700"), ("X-Why", "busy")]
    limited = Reply(429, limits, b"slow down")
    with scripted_origin(lambda seen: limited) as origin, running_mirror(origin.upstream) as mirror:
        for _ in range(2):  # the origin is not asked again
            response, body = mirror.request(TARGET)
            assert (response.status, body) == (429, b"slow down")
            assert response.getheader("RateLimit-Limit") == "100;w=21600"
            assert 0 < int(response.getheader("Retry-After") or 0) <= 700
    assert len(origin.seen) == 1


def test_the_server_that_answers_is_named_by_its_own_name() -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        for target in ("/v2/", "/v2/a/manifests/b", TARGET, "/v2/UPPER/tags/list"):
            assert mirror.request(target)[0].getheader("Server") == "layercast"


def raw(mirror: Mirror, request: bytes) -> bytes:
    with mirror.connect() as sock:
        sock.settimeout(WAIT_S)
        sock.sendall(request)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    "request_line", [b"GET /v2/ HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n", b"GET /v2/ HTTP/1.1\r\nA B: c\r\n\r\n"]
)
def test_what_is_no_request_is_answered_as_registries_do(request_line: bytes) -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        head, _, body = raw(mirror, request_line + b"\r\n\r\n").partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"400"
    assert b"Server: layercast" in head
    assert json.loads(body)["errors"][0]["code"]


@pytest.mark.parametrize("host", ["localhost:65001", "127.0.0.1", "[::1]:1", "127.8.8.8:5", "LOCALHOST"])
def test_the_mirror_answers_to_the_names_of_this_machine(host: str) -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        answer = raw(mirror, f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert b" 404 " in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/v2/", "/metrics"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:65001", "10.9.8.7:65001", "12345", "a b", "[::", "@", "x" * 300]
)
def test_a_page_whose_name_leads_here_gets_nothing(path: str, host: str) -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream) as mirror:
        answer = raw(mirror, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    status = answer.partition(b"\r\n")[0]
    assert b" 403 " in status or b" 400 " in status
    assert not origin.seen
    assert b"Traceback" not in answer


def test_a_name_that_the_operator_gave_the_mirror_is_its_own() -> None:
    with scripted_origin(not_found) as origin, running_mirror(origin.upstream, hosts=("mirror.example",)) as mirror:
        answer = raw(mirror, b"GET /v2/ HTTP/1.1\r\nHost: Mirror.Example:5\r\nConnection: close\r\n\r\n")
    assert b" 404 " in answer.partition(b"\r\n")[0]
