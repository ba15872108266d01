"""Tags, referrers, `/v2/`, and manifests that are not here, go to the origin and come back byte for byte."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.proxy.client_request import ProxyLimits
from proto.ids import Digest
from proto.oci.routes import HOP_HEADER
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin
from tests.unit.peer.registry.test_registry_failures import babbling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.peer.proxy.harness import Mirror

MANIFEST = b'{\n  "schemaVersion": 2 , "layers": []\n}\n'
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def manifest_reply(_: Seen) -> Reply:
    headers = [("Content-Type", MANIFEST_TYPE), ("Docker-Content-Digest", str(Digest.of(MANIFEST))), ("X-Own", "1")]
    return Reply(200, headers, MANIFEST)


def code_of(body: bytes) -> str:
    code = json.loads(body)["errors"][0]["code"]
    assert isinstance(code, str)
    return code


def test_a_manifest_comes_back_byte_for_byte_with_its_headers() -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/library/app/manifests/latest")
        wait_until(lambda: mirror.counted("layercast_requests_total", kind="manifest", status="200") == 1)
    assert body == MANIFEST
    assert response.getheader("Content-Type") == MANIFEST_TYPE
    assert response.getheader("X-Own") == "1"
    assert response.getheader("Content-Length") == str(len(MANIFEST))
    # By HEAD it is found out that this node cannot give it.
    assert [seen.method for seen in origin.seen] == ["HEAD", "GET"]
    for seen in origin.seen:
        assert seen.target == "/v2/library/app/manifests/latest"
        assert seen.all("Host") == [origin.authority]


def test_all_accept_lines_arrive_in_their_order_and_nothing_is_added() -> None:
    accepts = [MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json", "a/b;q=0.5, c/d", "*/*"]
    lines = [*(("Accept", value) for value in accepts), ("User-Agent", "docker/20.10"), ("Authorization", "Bearer t")]
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        mirror.request("/v2/library/app/tags/list", headers=lines)
        mirror.request("/v2/library/app/tags/list")
    first, bare = origin.seen
    assert first.all("Accept") == accepts
    assert first.all("Authorization") == ["Bearer t"]
    assert first.all("User-Agent") == ["docker/20.10"]
    assert {name.lower() for name, _ in bare.lines} == {"host", HOP_HEADER.lower()}


def test_hop_by_hop_headers_stay_on_their_hop() -> None:
    def answer(_: Seen) -> Reply:
        return Reply(200, [("Connection", "X-Secret-Hop"), ("X-Secret-Hop", "1"), ("Alt-Svc", "h3"), ("X-End", "1")])

    lines = [("Connection", "close, X-Mine"), ("X-Mine", "1"), ("Proxy-Authorization", "Basic x"), ("X-End", "1")]
    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request("/v2/", headers=lines)
    names = {name.lower() for name, _ in origin.seen[0].lines}
    assert names == {"host", "x-end", HOP_HEADER.lower()}
    assert response.getheader("X-End") == "1"
    assert response.getheader("X-Secret-Hop") is None
    assert response.getheader("Alt-Svc") is None


@pytest.mark.parametrize("query", ["", "?ns={}"])
def test_no_web_page_may_read_what_a_registry_lets_pages_read_at_its_own_name(query: str) -> None:
    lines = [("Access-Control-Allow-Origin", "*"), ("access-control-expose-headers", "Link")]
    with scripted_origin(lambda _: Reply(headers=lines)) as origin, running_mirror(origin.upstream) as mirror:
        target = f"/v2/app/tags/list{query.format(origin.authority)}"
        response, _ = mirror.request(target, headers=[("Origin", "https://evil.example.com")])
        assert response.status == 200
        assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_have_anything_fetched(site: str) -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        for target in ("/v2/a/tags/list", "/token?scope=repository:a:pull"):
            response, body = mirror.request(target, headers=[("Sec-Fetch-Site", site)])
            assert (response.status, b"DENIED" in body) == (403, True)
        assert origin.seen == []
        assert mirror.request("/v2/a/tags/list", headers=[("Sec-Fetch-Site", "none")])[0].status == 200


def test_a_compressed_answer_is_passed_on_as_it_is() -> None:
    packed = gzip.compress(MANIFEST)
    with (
        scripted_origin(lambda _: Reply(200, [("Content-Encoding", "gzip")], packed)) as origin,
        running_mirror(origin.upstream) as mirror,
    ):
        response, body = mirror.request("/v2/a/tags/list", headers=[("Accept-Encoding", "gzip")])
    assert origin.seen[0].all("Accept-Encoding") == ["gzip"]
    assert (response.getheader("Content-Encoding"), body) == ("gzip", packed)


def test_head_has_the_length_a_get_would_have() -> None:
    with scripted_origin(lambda _: Reply(declared=4321)) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/library/app/tags/list", method="HEAD")
    assert (response.status, body, response.getheader("Content-Length")) == (200, b"", "4321")
    assert origin.seen[0].method == "HEAD"


def test_head_of_a_blob_nobody_knows_is_the_origins_answer() -> None:
    digest = Digest.of(b"x")
    headers = [("Docker-Content-Digest", str(digest))]
    with (
        scripted_origin(lambda _: Reply(200, headers, declared=99)) as origin,
        running_mirror(origin.upstream) as mirror,
    ):
        response, _ = mirror.request(f"/v2/a/blobs/{digest}", method="HEAD", headers=[("Authorization", "Bearer t")])
    assert (response.status, response.getheader("Content-Length")) == (200, "99")
    assert origin.seen[0].all("Authorization") == ["Bearer t"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, []),
        (429, [("Retry-After", "17")]),
        (401, [("WWW-Authenticate", 'Bearer realm="https://auth.example/token",service="s"')]),
        (500, []),
        (304, [("ETag", '"x"')]),
    ],
)
def test_refusals_are_relayed_in_the_origins_words(status: int, headers: list[tuple[str, str]]) -> None:
    said = b"" if status == 304 else b'{"errors":[{"code":"THEIRS"}]}'
    with scripted_origin(lambda _: Reply(status, headers, said)) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/library/app/tags/list")
    assert (response.status, body) == (status, said)
    for name, value in headers:
        assert response.getheader(name) == value


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_ping_is_the_origins_status_and_challenge(path: str) -> None:
    challenge = 'Bearer realm="https://auth.example/token",service="registry"'
    reply = Reply(401, [("WWW-Authenticate", challenge)], b"{}")
    with scripted_origin(lambda _: reply) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request(path)
    assert (response.status, response.getheader("WWW-Authenticate")) == (401, challenge)
    assert origin.seen[0].target == "/v2/"


def test_ns_names_the_upstream_and_goes_no_further() -> None:
    with (
        scripted_origin(lambda _: Reply(500)) as default,
        scripted_origin(manifest_reply) as named,
        running_mirror(default.upstream, named.upstream) as mirror,
    ):
        encoded = named.authority.replace(":", "%3A")
        response, body = mirror.request(f"/v2/library/app/tags/list?ns={encoded}&x=a%2Fb")
    assert (response.status, body) == (200, MANIFEST)
    assert response.getheader("OCI-Namespace") == named.authority
    assert named.seen[0].target == "/v2/library/app/tags/list?x=a%2Fb"
    assert not default.seen


def test_a_registry_in_the_path_names_the_upstream() -> None:
    with (
        scripted_origin(lambda _: Reply(500)) as default,
        scripted_origin(manifest_reply) as named,
        running_mirror(default.upstream, named.upstream) as mirror,
    ):
        response, _ = mirror.request(f"/v2/{named.authority}/org/app/tags/list")
    assert response.status == 200
    assert response.getheader("OCI-Namespace") is None
    assert named.seen[0].target == "/v2/org/app/tags/list"


@pytest.mark.parametrize("target", ["/v2/a/tags/list?ns=evil.example", "/v2/evil.example:5000/a/tags/list"])
def test_a_registry_that_is_not_allowed_is_not_found(target: str) -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request(target)
    assert (response.status, code_of(body)) == (404, "NAME_UNKNOWN")
    assert not origin.seen


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/UPPER/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/blobs/sha256:zz/more", 404, "UNSUPPORTED"),
        ("/v2/a/tags/list?ns=h%2Fx", 400, "NAME_INVALID"),
        ("/v2/a/tags/list?ns=", 400, "NAME_INVALID"),
        ("/v2/%ff/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/c", 400, "NAME_INVALID"),
    ],
)
def test_a_malformed_request_is_a_registry_error(target: str, status: int, code: str) -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request(target)
    assert (response.status, code_of(body)) == (status, code)
    assert response.getheader("Content-Type") == "application/json"
    assert not origin.seen


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_the_api_does_not_have_is_refused(method: str) -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/a/blobs/uploads/", method=method, headers=[("Content-Length", "0")])
    assert (response.status, code_of(body)) == (405, "UNSUPPORTED")
    assert response.getheader("Allow") == "GET, HEAD, POST, PATCH, PUT, DELETE"
    assert not origin.seen


def test_a_request_that_came_through_a_mirror_already_is_refused() -> None:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/a/tags/list", headers=[(HOP_HEADER, "1")])
    assert (response.status, code_of(body)) == (508, "UNSUPPORTED")
    assert not origin.seen


def test_the_next_page_of_tags_stays_on_the_mirror() -> None:
    link = '<https://origin.example/v2/a/tags/list?last=c&n=3>; rel="next"'
    with scripted_origin(lambda _: Reply(200, [("Link", link)])) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request("/v2/a/tags/list?n=3")
    assert origin.seen[0].target == "/v2/a/tags/list?n=3"
    assert response.getheader("Link") == '</v2/a/tags/list?last=c&n=3>; rel="next"'


def test_referrers_are_passed_through() -> None:
    target = f"/v2/a/referrers/{Digest.of(b'x')}?artifactType=a%2Fb"
    reply = Reply(200, [("OCI-Filters-Applied", "artifactType")], b"{}")
    with scripted_origin(lambda _: reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request(target)
    assert (body, response.getheader("OCI-Filters-Applied")) == (b"{}", "artifactType")
    assert origin.seen[0].target == target


def test_a_token_for_the_prefixed_name_is_told_the_scope_and_realm_that_would_do() -> None:
    challenge = 'Bearer realm="https://auth.example/token",service="s",error="invalid_token"'
    reply = Reply(401, [("WWW-Authenticate", challenge)], b"{}")
    with scripted_origin(lambda _: reply) as origin, running_mirror(origin.upstream) as mirror:
        by_prefix, _ = mirror.request(f"/v2/{origin.authority}/org/app/tags/list")
        plain, _ = mirror.request("/v2/org/app/tags/list")
    told = by_prefix.getheader("WWW-Authenticate") or ""
    assert 'error="insufficient_scope"' in told
    assert f'scope="repository:{origin.authority}/org/app:pull"' in told
    assert f'realm="http://127.0.0.1:{mirror.port}/token"' in told
    assert plain.getheader("WWW-Authenticate") == challenge


def test_a_redirect_is_followed_without_credentials_and_its_query_kept() -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(307, [("Location", f"http://{cdn.authority}/data?sig=a%2Fb%3D&c=+~")])

    with scripted_origin(manifest_reply) as cdn, scripted_origin(answer) as origin:
        with running_mirror(origin.upstream, cdn.upstream) as mirror:
            response, body = mirror.request("/v2/a/tags/list", headers=[("Authorization", "Bearer t")])
        assert (response.status, body) == (200, MANIFEST)
        assert origin.seen[0].all("Authorization") == ["Bearer t"]
        assert cdn.seen[0].all("Authorization") == []
        assert cdn.seen[0].target == "/data?sig=a%2Fb%3D&c=+~"


def test_a_redirect_on_the_same_server_keeps_the_credential() -> None:
    def answer(seen: Seen) -> Reply:
        moved = seen.target == "/v2/a/tags/list"
        return Reply(302, [("Location", "/v2/c/tags/list")]) if moved else manifest_reply(seen)

    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request("/v2/a/tags/list", headers=[("Authorization", "Bearer t")])
    assert response.status == 200
    assert origin.seen[1].all("Authorization") == ["Bearer t"]


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "http://[::1]:1/x", "https://10.0.0.1/x", "ftp://x/"]
)
def test_a_redirect_that_may_not_be_followed_is_the_clients_to_follow(location: str) -> None:
    with (
        scripted_origin(lambda _: Reply(307, [("Location", location)])) as origin,
        running_mirror(origin.upstream) as mirror,
    ):
        response, _ = mirror.request("/v2/a/tags/list")
    assert (response.status, response.getheader("Location")) == (307, location)
    assert len(origin.seen) == 1


def test_a_redirect_target_that_wants_a_login_is_the_clients_to_follow() -> None:
    with scripted_origin(lambda _: Reply(401)) as cdn:
        location = f"http://{cdn.authority}/x"
        with (
            scripted_origin(lambda _: Reply(307, [("Location", location)], b"moved")) as origin,
            running_mirror(origin.upstream, cdn.upstream) as mirror,
        ):
            response, body = mirror.request("/v2/a/tags/list")
    assert (response.status, response.getheader("Location"), body) == (307, location, b"moved")


def test_an_origin_that_refuses_connections_is_unavailable() -> None:
    with scripted_origin(manifest_reply) as origin:
        upstream = origin.upstream
    with running_mirror(upstream) as mirror:
        response, body = mirror.request("/v2/a/tags/list")
    assert (response.status, code_of(body)) == (503, "UNAVAILABLE")


def test_an_origin_that_stalls_is_given_up_in_time() -> None:
    given_up = threading.Event()

    def stalled(seen: Seen) -> Reply:
        given_up.wait(WAIT_S)
        return manifest_reply(seen)

    limits = ProxyLimits(relay_s=0.3)
    with scripted_origin(stalled) as origin, running_mirror(origin.upstream, limits=limits) as mirror:
        response, body = mirror.request("/v2/a/tags/list")
        given_up.set()
    assert (response.status, code_of(body)) == (503, "UNAVAILABLE")


def test_of_an_answer_that_breaks_off_the_client_gets_nothing() -> None:
    reply = Reply(200, [("Content-Type", MANIFEST_TYPE)], MANIFEST, declared=1000)
    with scripted_origin(lambda _: reply) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request("/v2/a/tags/list")
    assert (response.status, code_of(body)) == (503, "UNAVAILABLE")


def test_long_header_lines_pass_both_ways() -> None:
    token, echo = "Bearer " + "t" * 40_000, "e" * 30_000
    with scripted_origin(lambda _: Reply(200, [("X-Echo", echo)])) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request("/v2/a/tags/list", headers=[("Authorization", token)])
    assert origin.seen[0].all("Authorization") == [token]
    assert response.getheader("X-Echo") == echo


def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        assert mirror.request("/v2/a/tags/list")[1] == MANIFEST


def test_a_tls_greeting_on_the_plain_port_is_ended_at_once() -> None:
    hello = bytes.fromhex("16030100f1010000ed0303") + bytes(range(200))
    with (
        scripted_origin(manifest_reply) as origin,
        running_mirror(origin.upstream) as mirror,
        mirror.connect() as client,
    ):
        client.sendall(hello)
        # Clients that try TLS first wait for an answer.
        _read_to_end(client)


def test_a_head_of_tls_greeting_that_never_ends_is_ended_too(mirror_alone: Mirror) -> None:
    with mirror_alone.connect() as client:
        client.sendall(b"\x16\x03\x01")
        client.settimeout(WAIT_S)
        _read_to_end(client)


@pytest.fixture
def mirror_alone() -> Iterator[Mirror]:
    with scripted_origin(manifest_reply) as origin, running_mirror(origin.upstream) as mirror:
        yield mirror


def _read_to_end(client: socket.socket) -> bytes:
    received = b""
    while True:
        try:
            part = client.recv(65536)
        except ConnectionResetError:
            return received
        if not part:
            return received
        received += part


def test_a_client_that_hangs_up_before_its_answer_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    hung_up = threading.Event()

    def slowly(seen: Seen) -> Reply:
        hung_up.wait(WAIT_S)
        return manifest_reply(seen)

    with scripted_origin(slowly) as origin, running_mirror(origin.upstream) as mirror:
        with mirror.connect() as client:
            client.sendall(b"GET /v2/library/app/tags/list HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: len(origin.seen) == 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The mirror hears of its end before it can answer another.
        assert mirror.request("/v2/X/blobs/bad")[0].status == 400
        hung_up.set()
        wait_until(lambda: mirror.counted("layercast_requests_total", kind="tags", status="499") == 1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


BODY = b'{"a": 1}'


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"200 OK\r\nContent-Length: -5", 200),
        (b"200 OK\r\nContent-Length: " + b"9" * 5000, 200),
        (b"200 OK\r\nContent-Length: 3, 8", 200),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", 200),
        (b"200 OK\r\nX-Nul: a\x00b\x01c\r\nX Y: z\r\n\xe9: 1\r\nX-Latin: caf\xe9\r\nX-Folded: a\r\n b", 200),
        (b"403 Verb\xf6ten \xff\x01", 403),
        (b"999 What\r\nContent-Length: 8", 503),
        (b"101 Switching Protocols\r\nContent-Length: 8", 503),
    ],
)
def test_whatever_a_registry_s_head_looks_like_the_client_gets_a_head_that_makes_sense(
    head: bytes, status: int
) -> None:
    body = b"8\r\n" + BODY + b"\r\n0\r\n\r\n" if b"chunked" in head else BODY
    with babbling(b"HTTP/1.1 " + head + b"\r\n\r\n" + body) as (_, upstream), running_mirror(upstream) as mirror:
        response, answered = mirror.request("/v2/library/app/tags/list")
    assert response.status == status
    assert response.getheader("Content-Length") == str(len(answered))
    if status != 503:
        assert answered == BODY


def test_a_registry_that_is_named_by_a_header_is_asked_and_told_back() -> None:
    with (
        scripted_origin(manifest_reply) as named,
        scripted_origin(manifest_reply) as default,
        running_mirror(default.upstream, named.upstream) as mirror,
    ):
        response, _ = mirror.request("/v2/a/tags/list", headers=[("OCI-Namespace", named.authority)])
        assert (response.status, response.getheader("OCI-Namespace")) == (200, named.authority)
        refused, _ = mirror.request("/v2/a/tags/list", headers=[("OCI-Namespace", "not.allowed.test")])
        assert refused.status == 404
    assert not default.seen
    assert [seen.all("OCI-Namespace") for seen in named.seen] == [[]]
