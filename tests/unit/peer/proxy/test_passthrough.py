"""Blobs that are not shared: with the client's own credential, hashed in passing, never stored."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.proxy.checked_body import WITHHELD_BYTES
from peer.proxy.client_request import ProxyLimits
from peer.registry.limits import OriginLimits
from proto.ids import Digest
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_origin import FakeOrigin
    from tests.unit.peer.proxy.harness import Mirror

MIB = 1024 * 1024
CONTENT = random.Random(3).randbytes(2 * MIB + 17)
PATH = f"/v2/name/blobs/{Digest.of(CONTENT)}"


@pytest.fixture
def pair() -> Iterator[tuple[FakeOrigin, Mirror]]:
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(CONTENT)
        yield origin, mirror


def test_a_private_blob_goes_through_with_the_clients_own_credential(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.token = "mine"
    response, body = mirror.request(PATH, headers=[("Authorization", "Bearer mine")])
    assert (response.status, body) == (200, CONTENT)
    assert response.getheader("Content-Length") == str(len(CONTENT))
    assert response.getheader("Docker-Content-Digest") == str(Digest.of(CONTENT))
    [asked] = origin.asked
    assert asked.headers["authorization"] == "Bearer mine"
    # Counted after each write: the client may have the last one first.
    wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "passthrough"}) == len(CONTENT))
    assert mirror.counted("layercast_bytes_total", source="passthrough") == len(CONTENT)


def test_what_passes_through_counts_for_the_origins_rate(
    pair: tuple[FakeOrigin, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(OriginLimits, "received", lambda _, upstream, size_bytes: told.append((upstream, size_bytes)))
    origin, mirror = pair
    origin.token = "mine"
    assert mirror.request(PATH, headers=[("Authorization", "Bearer mine")])[1] == CONTENT
    # Told after each write: the client may have the last one first.
    wait_until(lambda: sum(size_bytes for _, size_bytes in told) == len(CONTENT))
    assert {upstream for upstream, _ in told} == {origin.authority}


def test_a_refusal_is_the_origins_own_with_its_challenge(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.token = "another"
    origin.challenge = 'Bearer realm="https://auth.example/token",service="s",scope="repository:name:pull"'
    response, _ = mirror.request(PATH, headers=[("Authorization", "Bearer wrong")])
    assert (response.status, response.getheader("WWW-Authenticate")) == (401, origin.challenge)


def test_who_shows_no_credential_is_refused_as_such_though_a_token_of_ours_was_refused_before() -> None:
    def answer(seen: Seen) -> Reply:
        challenge = f'Bearer realm="{origin.upstream.url}/token",service="s",scope="repository:name:pull"'
        if seen.target.startswith("/token"):
            return Reply(200, body=b'{"token":"of-anyone"}')
        if seen.all("Authorization"):
            challenge += ',error="insufficient_scope"'
        return Reply(401, [("WWW-Authenticate", challenge)], b"no")

    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as mirror:
        response, body = mirror.request(PATH)
    assert (response.status, body) == (401, b"no")
    assert "insufficient_scope" not in (response.getheader("WWW-Authenticate") or "insufficient_scope")
    assert [seen.all("Authorization") for seen in origin.seen if "/blobs/" in seen.target][-1] == []


def test_an_unknown_blob_is_the_origins_own_404(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    response, body = mirror.request(f"/v2/name/blobs/{Digest.of(b'none')}")
    assert (response.status, json.loads(body)["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_rate_limit_is_told_with_its_time(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.faults.append(Fault(status=429, headers={"Retry-After": "7"}))
    response, _ = mirror.request(PATH)
    assert (response.status, response.getheader("Retry-After")) == (429, "7")
    assert len(origin.asked) == 1


def test_an_origin_that_is_down_is_unavailable() -> None:
    with fake_origin() as origin:
        upstream = origin.upstream
    with running_mirror(upstream) as mirror:
        response, body = mirror.request(PATH)
    assert (response.status, json.loads(body)["errors"][0]["code"]) == (503, "UNAVAILABLE")


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-", 0, len(CONTENT)), ("bytes=100-299", 100, 300), ("bytes=-5", len(CONTENT) - 5, len(CONTENT))],
)
def test_a_range_is_answered_whether_or_not_the_origin_knows_ranges(
    pair: tuple[FakeOrigin, Mirror], ranges: bool, header: str, start: int, end: int
) -> None:
    origin, mirror = pair
    origin.ranges = ranges
    response, body = mirror.request(PATH, headers=[("Range", header)])
    assert (response.status, body) == (206, CONTENT[start:end])
    assert response.getheader("Content-Range") == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert response.getheader("Content-Length") == str(end - start)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_range_beyond_the_blob_is_refused_with_its_size(pair: tuple[FakeOrigin, Mirror], ranges: bool) -> None:
    origin, mirror = pair
    origin.ranges = ranges
    response, body = mirror.request(PATH, headers=[("Range", f"bytes={len(CONTENT)}-")])
    assert (response.status, response.getheader("Content-Range")) == (416, f"bytes */{len(CONTENT)}")
    assert len(body) < 500


def test_a_body_that_the_origin_cuts_goes_on_at_the_byte_reached(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.faults += [Fault(cut_after_bytes=MIB), Fault(status=502), Fault(cut_after_bytes=1000), Fault()]
    response, body = mirror.request(PATH, headers=[("Authorization", "Bearer mine")])
    assert (response.status, body) == (200, CONTENT)
    assert [asked.range for asked in origin.asked] == [
        None,
        f"bytes={MIB}-{len(CONTENT) - 1}",
        f"bytes={MIB}-{len(CONTENT) - 1}",
        f"bytes={MIB + 1000}-{len(CONTENT) - 1}",
    ]
    assert {asked.headers.get("authorization") for asked in origin.asked} == {"Bearer mine"}


def test_a_credential_that_expires_in_mid_body_ends_it_short(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.faults += [Fault(cut_after_bytes=MIB), Fault(status=401)]
    response, body = mirror.request(PATH, headers=[("Authorization", "Bearer mine")])
    assert response.status == 200
    assert body == CONTENT[: MIB - WITHHELD_BYTES]


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [0, 1, WITHHELD_BYTES, WITHHELD_BYTES + 1, MIB])
def test_wrong_content_never_comes_complete(chunked: bool, size: int) -> None:
    wrong = CONTENT[:size]
    digest = Digest.of(b"right content")
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.chunked = chunked
        origin.blobs[str(digest)] = wrong
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
            connection.request("GET", f"/v2/name/blobs/{digest}")
            if size == 0 and not chunked:
                response = connection.getresponse()
                assert response.status == 502
                return
            response = connection.getresponse()
            with pytest.raises(http.client.IncompleteRead) as short:
                response.read()
        partial = short.value.partial
        assert partial == wrong[: max(0, size - WITHHELD_BYTES)]


def test_a_body_of_unknown_length_is_chunked_and_complete(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.chunked = True
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
        for _ in range(2):
            connection.request("GET", PATH)
            response = connection.getresponse()
            assert response.getheader("Transfer-Encoding") == "chunked"
            assert response.read() == CONTENT


def test_sha512_is_checked_against_the_digest_asked_for() -> None:
    digest = Digest.of(CONTENT, "sha512")
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.blobs[str(digest)] = CONTENT
        response, body = mirror.request(f"/v2/name/blobs/{digest}")
    assert (body, response.getheader("Docker-Content-Digest")) == (CONTENT, str(digest))


def test_a_redirect_is_followed_here_without_the_credential() -> None:
    with fake_origin() as cdn, fake_origin() as origin, running_mirror(origin.upstream, cdn.upstream) as mirror:
        cdn.add(CONTENT)
        origin.redirect_to = cdn.url
        _, body = mirror.request(PATH, headers=[("Authorization", "Bearer mine")])
        assert body == CONTENT
        assert "authorization" not in cdn.asked[0].headers


def test_a_redirect_that_may_not_be_followed_is_the_clients_to_follow() -> None:
    location = "http://169.254.169.254/x"
    with (
        scripted_origin(lambda _: Reply(307, [("Location", location)])) as origin,
        running_mirror(origin.upstream) as mirror,
    ):
        response, _ = mirror.request(PATH)
    assert (response.status, response.getheader("Location")) == (307, location)


def test_a_success_to_the_replayed_request_is_not_relayed_past_the_threads() -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(404) if len(origin.seen) == 1 else Reply(200, body=b"x" * 100)

    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as mirror:
        response, _ = mirror.request(PATH)
    assert response.status == 404


def test_a_client_that_hangs_up_ends_the_passage(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.faults.append(Fault(stall_after_bytes=MIB))
    with mirror.connect() as client:
        client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        client.recv(100)
    wait_until(lambda: mirror.counted("layercast_requests_total", kind="blob", status="499") == 1)


def test_bodies_beyond_the_limit_are_refused_by_name() -> None:
    limits = ProxyLimits(hangup_check_s=0.05, passages_max=1)
    with fake_origin() as origin, running_mirror(origin.upstream, limits=limits) as mirror:
        origin.add(CONTENT)
        origin.faults.append(Fault(stall_after_bytes=1000))
        with mirror.connect() as client:
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            wait_until(lambda: len(origin.asked) == 1)
            response, body = mirror.request(PATH)
        assert (response.status, json.loads(body)["errors"][0]["code"]) == (503, "UNAVAILABLE")


def test_a_slow_client_does_not_hold_up_the_event_loop(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    big = random.Random(5).randbytes(24 * MIB)
    digest = origin.add(big)
    with mirror.connect() as client:
        client.sendall(f"GET /v2/name/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "passthrough"}) > 0)
        assert mirror.request(PATH)[1] == CONTENT
        with client.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(len(big)) == big


@pytest.mark.parametrize("size", [str(len(CONTENT)), "*"])
def test_an_origin_that_sends_a_part_first_makes_no_complete_answer_of_it(size: str) -> None:
    def in_parts(seen: Seen) -> Reply:
        asked = seen.all("Range")
        start = int(asked[0].partition("=")[2].partition("-")[0]) if asked else 0
        part = CONTENT[start : start + 300_000]
        if not part:
            return Reply(416, [("Content-Range", f"bytes */{len(CONTENT)}")])
        return Reply(206, [("Content-Range", f"bytes {start}-{start + len(part) - 1}/{size}")], part)

    with scripted_origin(in_parts) as origin, running_mirror(origin.upstream) as mirror:
        _, body = mirror.request(PATH, headers=[("Authorization", "Bearer mine")])
    # Where the end is not known, the answer ends short.
    assert body == (CONTENT[:-WITHHELD_BYTES] if size == "*" else CONTENT)
