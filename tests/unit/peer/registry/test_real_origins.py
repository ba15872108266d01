"""Origins as they are: all of what they do here works with docker or containerd directly."""

from __future__ import annotations

import gzip
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.addresses import upstream_endpoint
from peer.registry.client import OriginHttp
from peer.registry.sockets import OriginTimeouts, tls_context
from proto.config.upstream_sections import upstreams_of
from proto.errors import ConfigError, UpstreamKind
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig
from tests.support.fake_origin import FakeOrigin, Fault
from tests.support.tls import Authority
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin
from tests.unit.peer.registry.registry_harness import CONTENT, Reader, read_all, reading, refused
from tests.unit.peer.registry.test_registry_failures import babbling

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = Digest.of(CONTENT)
LENGTH = b"Content-Length: %d\r\n\r\n" % len(CONTENT)


def test_a_blob_that_the_origin_compresses_on_the_way_is_the_blob() -> None:
    packed = gzip.compress(CONTENT)

    def compressed(seen: Seen) -> Reply:
        part = seen.all("Range") != []
        headers = [("Content-Encoding", "gzip"), ("Content-Range", f"bytes 0-9/{len(packed)}")][: 1 + part]
        return Reply(206 if part else 200, headers, packed[:10] if part else packed)

    with scripted_origin(compressed) as origin:
        reader = Reader([origin.upstream])
        for end in (None, 10):
            body = reader.open(origin.upstream, DIGEST, end=end)
            assert (body.is_range, body.size_bytes) == (False, None)
            assert read_all(body) == CONTENT
        assert reader.stat(origin.upstream, DIGEST) is None
        reader.close()


def test_a_compressed_body_that_is_damaged_or_short_is_an_error() -> None:
    packed = gzip.compress(CONTENT)
    for body, kind in ((packed[:-20], UpstreamKind.UNAVAILABLE), (b"nonsense", UpstreamKind.CONTENT)):
        reply = Reply(200, [("Content-Encoding", "gzip")], body)
        with scripted_origin(lambda seen, reply=reply: reply) as origin:  # type: ignore[misc]
            reader = Reader([origin.upstream])
            assert refused(lambda: read_all(reader.open(origin.upstream, DIGEST))).kind is kind  # noqa: B023
            reader.close()


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"]
)
def test_interim_answers_are_passed_over(interim: bytes) -> None:
    with babbling(interim * 3 + b"HTTP/1.1 200 OK\r\n" + LENGTH + CONTENT) as (reader, upstream):
        assert read_all(reader.open(upstream, DIGEST)) == CONTENT


def test_interim_answers_without_end_are_no_answer() -> None:
    with babbling(b"HTTP/1.1 102 Processing\r\n\r\n" * 100) as (reader, upstream):
        assert refused(lambda: reader.open(upstream, DIGEST)).kind is UpstreamKind.UNAVAILABLE


def test_an_answer_that_ends_with_its_connection_is_read_to_its_end() -> None:
    with babbling(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH + CONTENT) as (reader, upstream):
        assert read_all(reader.open(upstream, DIGEST)) == CONTENT


@pytest.mark.parametrize("location", ["/x y?sig=a b", "/\xc3\xa4?sig=\xc3\xbc", "http://{}/a b?sig=c d"])
def test_a_redirect_with_raw_spaces_or_utf8_is_followed_encoded(location: str) -> None:
    def redirecting(seen: Seen) -> Reply:
        if "sig=" in seen.target:
            return Reply(200, body=CONTENT)
        return Reply(307, [("Location", location.format(seen.all("Host")[0]))])

    with scripted_origin(redirecting) as origin:
        reader = Reader([origin.upstream])
        assert read_all(reader.open(origin.upstream, DIGEST)) == CONTENT
        reader.close()
    assert origin.seen[-1].target in ("/x%20y?sig=a%20b", "/%C3%A4?sig=%C3%BC", "/a%20b?sig=c%20d")


@pytest.mark.parametrize(
    "location", ["http://[::1/?sig=secret", "//\x7f/?sig=secret", "/\x01?sig=secret", "/\x7f?sig=secret"]
)
def test_a_signed_query_is_in_no_error(location: str) -> None:
    with scripted_origin(lambda seen: Reply(307, [("Location", location)])) as origin:
        reader = Reader([origin.upstream])
        error = refused(lambda: reader.open(origin.upstream, DIGEST))
        reader.close()
    assert "secret" not in str(error)


def test_a_redirect_to_another_port_names_the_setting_and_leaves_it_to_the_client(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.redirect_to = "https://127.0.0.1:9"
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert 'redirect_hosts = ["127.0.0.1:9"]' in str(error)
    assert f'[upstream."{origin.authority}"]' in str(error)
    assert error.answer.status == 307  # type: ignore[attr-defined]
    assert "X-Signature" in error.answer.headers["Location"]  # type: ignore[attr-defined]


def test_no_credential_of_any_name_follows_a_redirect_to_another_server() -> None:
    with scripted_origin(lambda seen: Reply(200, body=CONTENT)) as storage:
        answer = Reply(307, [("Location", f"http://{storage.authority}/x")])
        with scripted_origin(lambda seen: answer) as origin:
            upstream = replace(origin.upstream, redirect_hosts=(storage.authority,))
            reader = Reader([upstream])
            lines = (("Private-Token", "t"), ("X-JFrog-Art-Api", "t"), ("User-Agent", "docker"))
            body = reader.open(upstream, DIGEST, authorization="Bearer t", lines=lines)
            assert read_all(body) == CONTENT
            reader.close()
    assert [origin.seen[0].all(name) for name in ("Private-Token", "X-JFrog-Art-Api", "User-Agent")] == [
        ["t"],
        ["t"],
        ["docker"],
    ]
    assert storage.seen[0].all("User-Agent") == ["docker"]
    assert not any("t" in storage.seen[0].all(name) for name in ("Private-Token", "X-JFrog-Art-Api", "Authorization"))


def test_a_body_slower_than_its_least_rate_is_given_up(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.registry.exchange.FLOOR_S", 0.2)
    digest = origin.add(CONTENT)
    origin.faults = [Fault(trickle_s=0.1)]
    with reading(origin, read_s=WAIT_S) as reader, reader.open(origin.upstream, digest) as body:
        error = refused(lambda: [body.readinto(memoryview(bytearray(10))) for _ in range(len(CONTENT))])
    assert "origin_rate_min" in str(error)
    origin.released.set()


def test_a_head_that_trickles_ends_with_the_time_for_a_first_byte() -> None:
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200
    http = OriginHttp(OriginTimeouts(first_byte_s=0.5))
    with babbling(head, pause_s=0.1) as (_, upstream):
        reader = Reader([upstream], http)
        assert "timed out" in str(refused(lambda: reader.open(upstream, DIGEST)))
        reader.close()


def test_an_egress_proxy_may_have_a_password_and_no_port_and_is_never_printed() -> None:
    [upstream] = upstreams_of({"r.example": {"egress_proxy": "http://user:secret@proxy.example"}}, {})
    assert upstream.egress_proxy == "http://user:secret@proxy.example"
    assert "secret" not in repr(upstream) + repr(upstream_endpoint(upstream, anonymous=True))
    with pytest.raises(ConfigError) as caught:
        upstreams_of({"r.example": {"egress_proxy": "socks5://user:secret@proxy.example"}}, {})
    assert "egress_proxy" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_ca_file_may_hold_an_intermediate_alone_and_what_go_accepts(tmp_path: Path) -> None:
    upstream = UpstreamConfig("r", "https://r", configured=True, ca_file=Authority(tmp_path).certificate_file)
    flags = tls_context(upstream_endpoint(upstream, anonymous=True)).verify_flags
    assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert not flags & ssl.VERIFY_X509_STRICT
