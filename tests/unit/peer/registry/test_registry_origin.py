"""Reading blobs from a registry: tokens, redirects, ranges, and whether a blob is public."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import pytest

from peer.registry.blob_body import HttpBody
from peer.registry.client import OriginHttp
from proto.errors import UpstreamKind
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig
from tests.conformance.origin_suite import HOST, REPOSITORY, OriginSuite
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin
from tests.support.layout_registry import LayoutRegistry
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin
from tests.unit.peer.registry.registry_harness import CONTENT, Reader, read_all, reading, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.image import Image


class TestRegistryOrigin(OriginSuite):
    @pytest.fixture
    def upstream(self, image: Image) -> Iterator[UpstreamConfig]:
        with LayoutRegistry({REPOSITORY: image.layout}) as registry:
            yield UpstreamConfig(HOST, f"http://{registry.address}", configured=True)


def test_a_range_is_answered_by_206_with_the_blobs_size(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with reading(origin) as reader:
        response = reader.open(origin.upstream, digest, start=1000, end=3000)
        assert (response.is_range, response.start, response.end, response.size_bytes) == (
            True,
            1000,
            3000,
            len(CONTENT),
        )
        assert read_all(response) == CONTENT[1000:3000]


def test_an_origin_without_ranges_answers_200_from_the_first_byte(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.ranges = False
    with reading(origin) as reader:
        response = reader.open(origin.upstream, digest, start=1000)
        assert (response.is_range, response.start, response.size_bytes) == (False, 0, len(CONTENT))
        assert read_all(response) == CONTENT


def test_a_chunked_body_is_read(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.chunked = True
    with reading(origin) as reader:
        response = reader.open(origin.upstream, digest)
        assert response.size_bytes is None
        assert read_all(response) == CONTENT


def test_the_bytes_are_asked_for_as_they_are_and_the_hop_is_marked(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with reading(origin) as reader:
        read_all(reader.open(origin.upstream, digest))
    headers = origin.asked[0].headers
    assert headers["accept-encoding"] == "identity"
    assert "layercast-hop" in headers
    assert "authorization" not in headers
    assert headers["host"] == origin.authority


def test_a_connection_is_used_again_after_a_whole_body(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    accepted: list[object] = []
    with reading(origin) as reader:
        for _ in range(3):
            response = reader.open(origin.upstream, digest)
            assert isinstance(response, HttpBody)
            accepted.append(response._exchange._connection.sock.getsockname())
            read_all(response)
    assert len(set(accepted)) == 1


def test_proxy_variables_of_the_environment_are_ignored(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    digest = origin.add(CONTENT)
    with reading(origin) as reader:
        assert read_all(reader.open(origin.upstream, digest)) == CONTENT


def test_an_anonymous_token_is_fetched_once_and_used_for_all_blobs_of_the_repository(origin: FakeOrigin) -> None:
    origin.token = "t0ken"
    digests = [origin.add(CONTENT), origin.add(CONTENT[1:])]
    with reading(origin) as reader:
        for digest in digests:
            read_all(reader.open(origin.upstream, digest))
    targets = [asked.target for asked in origin.asked]
    assert [target.partition("?")[0].split("/")[1] for target in targets] == ["v2", "token", "v2", "v2"]
    assert targets[1] == "/token?service=fake&scope=repository%3Aname%3Apull"
    assert "authorization" not in origin.asked[1].headers


def test_a_token_that_is_refused_is_replaced(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token = "first"
    with reading(origin) as reader:
        read_all(reader.open(origin.upstream, digest))
        origin.token = "second"
        assert read_all(reader.open(origin.upstream, digest)) == CONTENT


def test_a_clients_own_credential_is_shown_and_its_refusal_is_final(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token = "other"
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest, authorization="Basic abc"))
    assert (error.kind, error.status) == (UpstreamKind.DENIED, 401)
    assert [asked.headers.get("authorization") for asked in origin.asked] == ["Basic abc"]


def test_a_basic_challenge_is_a_denial(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token, origin.challenge = "x", 'Basic realm="r"'
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert error.kind is UpstreamKind.DENIED


def test_a_redirect_to_another_host_gets_the_signed_query_and_no_credential(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token = "t0ken"
    with fake_origin() as cdn, reading(origin, cdn) as reader:
        cdn.add(CONTENT)
        origin.redirect_to = cdn.url
        assert read_all(reader.open(origin.upstream, digest, start=5, end=9)) == CONTENT[5:9]
        assert cdn.asked[0].target == f"/v2/name/blobs/{digest}?X-Signature=a%2Fb%3D&b=+~"
        assert "authorization" not in cdn.asked[0].headers
        assert cdn.asked[0].range == "bytes=5-8"


def test_redirects_that_never_end_are_given_up(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.redirect_to = origin.url
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert error.kind is UpstreamKind.UNAVAILABLE
    assert len(origin.asked) == 6


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest", "http://127.0.0.2:9/x", "https://localhost/", "https://10.0.0.1/x",
     "https://[::1]/x", "https://[::ffff:10.0.0.1]/", "https://user@host.example/", "ftp://host.example/",
     "https://a b/", "//[bad"],
)  # fmt: skip
def test_a_redirect_to_where_nobody_configured_is_not_followed(origin: FakeOrigin, location: str) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=307, headers={"Location": location})]
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert error.kind in (UpstreamKind.DENIED, UpstreamKind.CONTENT)


def test_a_realm_on_a_private_address_is_not_asked(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token, origin.realm = "x", "https://192.168.0.1/token"
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert error.kind is UpstreamKind.DENIED


def test_a_name_that_resolves_to_a_private_address_is_not_followed(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.redirect_to = "https://innocent.example"
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.1.2.3"] if host == "innocent.example" else [host]

    reader = Reader([origin.upstream], OriginHttp(resolver=resolver))
    error = refused(lambda: reader.open(origin.upstream, digest))
    reader.close()
    assert error.kind is UpstreamKind.DENIED
    assert asked == ["127.0.0.1", "innocent.example"]


def test_an_empty_blob_is_read_whatever_the_origin_thinks_of_ranges(origin: FakeOrigin) -> None:
    digest = origin.add(b"")
    origin.faults = [Fault(), Fault(status=416, headers={"Content-Range": "bytes */0"})]
    with reading(origin) as reader:
        for _ in range(2):
            response = reader.open(origin.upstream, digest, end=1000)
            assert response.size_bytes == 0
            assert read_all(response) == b""


def test_a_head_tells_of_a_public_blob_and_its_size(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.token = "t0ken"
    with reading(origin) as reader:
        assert reader.stat(origin.upstream, digest) == len(CONTENT)
    assert origin.blob_requests("GET") == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, UpstreamKind.DENIED), (403, UpstreamKind.DENIED), (404, UpstreamKind.UNKNOWN)]
)
def test_a_refused_get_means_not_public(origin: FakeOrigin, status: int, kind: UpstreamKind) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=status)] * 2
    with reading(origin) as reader:
        error = refused(lambda: reader.stat(origin.upstream, digest))
    assert (error.kind, error.status) == (kind, status)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 500])
def test_a_refused_head_is_a_hint_and_a_get_decides(origin: FakeOrigin, status: int) -> None:
    digest = origin.add(CONTENT)
    origin.head_status = status
    with reading(origin) as reader:
        assert reader.stat(origin.upstream, digest) == len(CONTENT)
    assert [asked.range for asked in origin.blob_requests("GET")] == ["bytes=0-0"]


def test_a_head_without_a_size_is_a_hint_and_a_get_decides(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(surplus=b" ")]
    with reading(origin) as reader:
        assert reader.stat(origin.upstream, digest) == len(CONTENT)


# Of a size that has the byte asked for, of none, and of none at all.
@pytest.mark.parametrize("told", [{"Content-Range": f"bytes */{len(CONTENT)}"}, {"Content-Range": "bytes */*"}, {}])
def test_where_every_range_is_refused_the_whole_is_asked_for(origin: FakeOrigin, told: dict[str, str]) -> None:
    digest = origin.add(CONTENT)
    origin.head_status = 405
    refusal = Fault(status=416, headers=told)
    origin.faults = [Fault(), refusal, Fault(), refusal]
    with reading(origin) as reader:
        assert reader.stat(origin.upstream, digest) == len(CONTENT)
        response = reader.open(origin.upstream, digest, start=1000, end=3000)
        assert (response.is_range, response.size_bytes) == (False, len(CONTENT))
        assert read_all(response) == CONTENT
    assert [asked.range for asked in origin.blob_requests("GET")] == ["bytes=0-0", None, "bytes=1000-2999", None]


def test_a_range_behind_the_end_is_not_asked_for_as_a_whole(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest, start=len(CONTENT)))
    assert (error.kind, error.status) == (UpstreamKind.CONTENT, 416)
    assert len(origin.asked) == 1


def test_who_is_limited_asks_no_more(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=429, headers={"Retry-After": "600"})]
    with reading(origin) as reader:
        for ask in (reader.stat, reader.open):
            assert refused(functools.partial(ask, origin.upstream, digest)).retry_after_s == pytest.approx(600, abs=60)
        with reader.open(origin.upstream, digest, authorization="Bearer mine"):
            pass  # who has a limit of its own
    assert len(origin.asked) == 2


@pytest.mark.parametrize(("status", "kind"), [(429, UpstreamKind.RATE_LIMITED), (503, UpstreamKind.UNAVAILABLE)])
def test_an_origin_that_cannot_say_is_no_refusal(origin: FakeOrigin, status: int, kind: UpstreamKind) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=status)]
    with reading(origin) as reader:
        error = refused(lambda: reader.stat(origin.upstream, digest))
    assert error.kind is kind


def test_a_redirected_head_counts_only_if_it_leads_to_the_blob(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with fake_origin() as cdn, reading(origin, cdn) as reader:
        origin.redirect_to = cdn.url
        assert refused(lambda: reader.stat(origin.upstream, digest)).kind is UpstreamKind.UNKNOWN
        cdn.add(CONTENT)
        assert reader.stat(origin.upstream, digest) == len(CONTENT)


def test_a_redirect_to_a_login_means_not_public(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with fake_origin() as login, reading(origin, login) as reader:
        login.token = "needs one"
        login.add(CONTENT)
        origin.redirect_to = login.url
        assert refused(lambda: reader.stat(origin.upstream, digest)).kind is UpstreamKind.DENIED


def test_a_redirect_to_a_page_that_asks_for_a_login_is_a_refusal() -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.startswith("/login"):
            return Reply(200, [("Content-Type", "text/html; charset=utf-8")], b"<html>")
        return Reply(302, [("Location", "/login")])

    with scripted_origin(answer) as origin, contextlib.closing(Reader([origin.upstream])) as reader:
        error = refused(lambda: reader.stat(origin.upstream, Digest.of(CONTENT)))
    assert (error.kind, error.status) == (UpstreamKind.DENIED, 302)
