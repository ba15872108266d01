"""Blobs that are shared: in order, by range, while they arrive, and what happens when the swarm fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import random
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.node.blobs import BlobFailed, DigestMismatch
from peer.proxy.client_socket import AT_ONCE_MAX_BYTES, ClientSocket
from peer.registry.retry import RetrySettings
from proto.ids import Digest
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.peer.proxy.harness import PATIENT, Mirror, ScriptedBlob, ScriptedNode, _Handle, running_mirror, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_origin import FakeOrigin

MIB = 1024 * 1024


def content_of(size_bytes: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


@pytest.fixture(params=["uvloop", "asyncio"])
def origin_and_mirror(request: pytest.FixtureRequest) -> Iterator[tuple[FakeOrigin, Mirror]]:
    with fake_origin() as origin, running_mirror(origin.upstream, uv=request.param == "uvloop") as mirror:
        yield origin, mirror


def share(mirror: Mirror, content: bytes, *, available: int | None = None, complete: bool = True) -> ScriptedBlob:
    blob = ScriptedBlob(content, available=available, complete=complete)
    mirror.node.blobs[Digest.of(content)] = blob
    return blob


def path_of(content: bytes) -> str:
    return f"/v2/library/app/blobs/{Digest.of(content)}"


def test_a_stored_blob_is_sent_whole_with_its_names(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = origin_and_mirror
    content = content_of(9 * MIB)
    share(mirror, content)
    response, body = mirror.request(path_of(content))
    assert response.status == 200
    assert response.getheader("Content-Length") == str(len(content))
    assert response.getheader("Docker-Content-Digest") == str(Digest.of(content))
    assert response.getheader("Accept-Ranges") == "bytes"
    assert response.getheader("Content-Type") == "application/octet-stream"
    assert body == content
    wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "store"}) == len(content))
    assert not origin.asked


def test_a_connection_is_used_again_after_a_body_by_sendfile(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = origin_and_mirror
    contents = [content_of(size, seed=size) for size in (3 * MIB, 1, 0, 700_000)]
    for content in contents:
        share(mirror, content)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
        connection.connect()
        first = connection.sock
        for content in contents * 2:
            connection.request("GET", path_of(content))
            assert connection.getresponse().read() == content
            assert connection.sock is first


@pytest.mark.parametrize("fresh", [True, False])
def test_only_few_bytes_that_are_in_memory_leave_without_a_thread(
    origin_and_mirror: tuple[FakeOrigin, Mirror], monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    _, mirror = origin_and_mirror
    turns: list[int] = []
    send_some = ClientSocket._send_some

    def counted(client: ClientSocket, file_fd: int, offset: int, count: int) -> int:
        turns.append(count)
        return send_some(client, file_fd, offset, count)

    monkeypatch.setattr(ClientSocket, "_send_some", counted)
    content = content_of(AT_ONCE_MAX_BYTES)
    share(mirror, content).fresh = fresh
    assert mirror.request(path_of(content))[1] == content
    # A socket that takes only a part leaves the rest to a thread.
    assert sum(turns) < len(content) if fresh else sum(turns) >= len(content)
    large = content_of(AT_ONCE_MAX_BYTES + 1)
    share(mirror, large).fresh = True
    turns.clear()
    assert mirror.request(path_of(large))[1] == large
    assert sum(turns) >= len(large)


def test_bytes_leave_while_the_rest_is_still_arriving(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = origin_and_mirror
    content = content_of(4 * MIB)
    blob = share(mirror, content, available=0, complete=False)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
        connection.request("GET", path_of(content))
        response = connection.getresponse()  # the headers, before a single byte is there
        assert response.getheader("Content-Length") == str(len(content))
        received = b""
        for end in (1, MIB, MIB + 5, 4 * MIB):
            blob.move(end)
            received += response.read(end - len(received))
            assert received == content[:end]
    wait_until(lambda: blob.readers == 0)
    assert blob.waited_for[0] == 0
    wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "swarm"}) == len(content))


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-", 206, 0, 1000),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=990-5000", 206, 990, 1000),
        ("bytes=-7", 206, 993, 1000),
        ("bytes=5-4", 200, 0, 1000),
        ("bytes=0-1,6-5", 200, 0, 1000),
        ("lines=0-1", 200, 0, 1000),
    ],
)
def test_a_range_is_answered_with_just_that(header: str, status: int, start: int, end: int) -> None:
    content = content_of(1000)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        share(mirror, content)
        response, body = mirror.request(path_of(content), headers=[("Range", header)])
    assert (response.status, body) == (status, content[start:end])
    expected = f"bytes {start}-{end - 1}/1000" if status == 206 else None
    assert response.getheader("Content-Range") == expected


def test_a_range_beyond_the_blob_is_refused_with_its_size() -> None:
    content = content_of(1000)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        blob = share(mirror, content)
        response, body = mirror.request(path_of(content), headers=[("Range", "bytes=1000-")])
        assert blob.readers == 0
    assert response.status == 416
    assert response.getheader("Content-Range") == "bytes */1000"
    assert b"errors" in body


@settings(max_examples=40)
@given(st.integers(0, 3000), st.one_of(st.none(), st.integers(0, 3000)), st.integers(0, 2500))
def test_any_range_gives_the_bytes_it_names(first: int, last: int | None, size: int) -> None:
    content = _SHARED[:size]
    mirror = _running()
    if Digest.of(content) not in mirror.node.blobs:
        share(mirror, content)
    header = f"bytes={first}-{'' if last is None else last}"
    response, body = mirror.request(path_of(content), headers=[("Range", header)])
    end = size if last is None else min(last + 1, size)
    if size == 0 or (last is not None and last < first):
        assert (response.status, body) == (200, content)
    elif first >= size:
        assert response.status == 416
    else:
        assert (response.status, body) == (206, content[first:end])


_SHARED = content_of(2500)
_RUNNING: list[Mirror] = []


def _running() -> Mirror:
    return _RUNNING[0]


@pytest.fixture(autouse=True)
def _mirror_for_all_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.originalname != "test_any_range_gives_the_bytes_it_names":
        yield
        return
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        _RUNNING.append(mirror)
        yield
        _RUNNING.clear()


def test_head_of_a_known_blob_has_the_real_length_and_asks_nobody() -> None:
    content = content_of(12345)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        share(mirror, content)
        response, body = mirror.request(path_of(content), method="HEAD")
        assert not origin.asked
    assert (response.status, body) == (200, b"")
    assert response.getheader("Content-Length") == "12345"
    assert response.getheader("Docker-Content-Digest") == str(Digest.of(content))


def test_twenty_clients_at_once_get_all_of_it(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = origin_and_mirror
    content = content_of(6 * MIB)
    blob = share(mirror, content, available=MIB, complete=False)
    with concurrent.futures.ThreadPoolExecutor(20) as clients:
        results = [clients.submit(mirror.request, path_of(content)) for _ in range(20)]
        wait_until(lambda: blob.readers == 20)
        blob.move(4 * MIB)
        wait_until(lambda: blob.waited_for.count(4 * MIB) == 20)
        blob.move(6 * MIB)
        wanted = hashlib.sha256(content).digest()
        assert all(hashlib.sha256(result.result()[1]).digest() == wanted for result in results)
    wait_until(lambda: blob.readers == 0)


def test_a_slow_client_keeps_no_thread_from_the_others(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = origin_and_mirror
    big, small = content_of(24 * MIB, seed=1), content_of(MIB, seed=2)
    taken = share(mirror, big)
    share(mirror, small)
    slow = [mirror.connect() for _ in range(4)]  # twice the threads there are
    for client in slow:
        client.sendall(f"GET {path_of(big)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    wait_until(lambda: taken.readers == len(slow))
    assert mirror.request(path_of(small))[1] == small
    for client in slow:
        with client, client.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(len(big)) == big


def test_a_client_that_hangs_up_while_waiting_lets_go_of_the_blob(
    origin_and_mirror: tuple[FakeOrigin, Mirror],
) -> None:
    _, mirror = origin_and_mirror
    content = content_of(MIB)
    blob = share(mirror, content, available=1000, complete=False)
    with mirror.connect() as client:
        client.sendall(f"GET {path_of(content)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: 1000 in blob.waited_for)
        assert blob.readers == 1
    wait_until(lambda: blob.readers == 0)


def test_a_client_that_hangs_up_in_mid_body_lets_go_of_the_blob(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = origin_and_mirror
    content = content_of(32 * MIB)
    blob = share(mirror, content)
    with mirror.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path_of(content)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        client.recv(1000)
        assert blob.readers == 1
    wait_until(lambda: blob.readers == 0)
    assert mirror.request(path_of(content))[1] == content


def test_a_client_that_hangs_up_before_the_size_is_known_ends_the_opening() -> None:
    node = ScriptedNode(stalls=True)
    with fake_origin() as origin, running_mirror(origin.upstream, node=node) as mirror:
        with mirror.connect() as client:
            client.sendall(f"GET {path_of(b'x')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            wait_until(lambda: bool(node.asked))
        wait_until(lambda: mirror.counted("layercast_requests_total", kind="blob", status="499") == 1)


def test_a_failed_swarm_is_continued_upstream_at_the_byte_reached(
    origin_and_mirror: tuple[FakeOrigin, Mirror],
) -> None:
    origin, mirror = origin_and_mirror
    content = content_of(3 * MIB)
    origin.add(content)
    blob = share(mirror, content, available=MIB, complete=False)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
        send(connection, "GET", path_of(content), [("Authorization", "Bearer mine")])
        response = connection.getresponse()
        first = response.read(MIB)
        blob.move(failure=BlobFailed("no source left"))
        assert first + response.read() == content
        connection.request("GET", "/v2/X/blobs/bad")  # the connection is good for more
        assert connection.getresponse().status == 400
    [asked] = origin.blob_requests()
    assert asked.range == f"bytes={MIB}-{3 * MIB - 1}"
    assert asked.headers["authorization"] == "Bearer mine"
    wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "passthrough"}) == 2 * MIB)


def test_a_swarm_that_fails_is_never_continued_to_a_complete_wrong_body() -> None:
    content = content_of(MIB)
    digest = Digest.of(content)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.blobs[str(digest)] = content[:-1] + bytes([content[-1] ^ 1])
        blob = share(mirror, content, available=300_000, complete=False)
        blob.move(failure=BlobFailed("no source left"))
        response, body = mirror.request(path_of(content))
    assert response.status == 200
    assert body == content[: MIB - 64 * 1024]


def test_a_wrong_blob_ends_short_and_asks_nobody(origin_and_mirror: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = origin_and_mirror
    content = content_of(MIB)
    origin.add(content)
    blob = share(mirror, content, available=1000, complete=False)
    blob.move(failure=DigestMismatch("wrong content"))
    response, body = mirror.request(path_of(content))
    assert (response.status, body) == (200, content[:1000])
    assert not origin.asked
    wait_until(lambda: blob.readers == 0)


def test_a_failed_swarm_and_a_failed_origin_end_the_body_short() -> None:
    content = content_of(MIB)
    retry = RetrySettings(0.01, 0.05, without_progress_s=0.2)
    with fake_origin() as origin, running_mirror(origin.upstream, limits=replace(PATIENT, retry=retry)) as mirror:
        origin.add(content)
        origin.faults += [Fault(status=503)] * 100
        blob = share(mirror, content, available=1000, complete=False)
        blob.move(failure=BlobFailed("no source left"))
        _, body = mirror.request(path_of(content))
    assert body == content[:1000]


def test_a_range_of_a_failed_swarm_is_finished_upstream() -> None:
    content = content_of(MIB)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(content)
        blob = share(mirror, content, available=2000, complete=False)
        blob.move(failure=BlobFailed("no source left"))
        response, body = mirror.request(path_of(content), headers=[("Range", "bytes=1500-2999")])
    assert (response.status, body) == (206, content[1500:3000])


def test_a_file_shorter_than_it_should_be_is_finished_upstream() -> None:
    content = content_of(MIB)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(content)
        blob = share(mirror, content)
        blob.file.truncate(5000)
        blob.available = 5000
        assert mirror.request(path_of(content))[1] == content


def test_a_blob_voided_while_it_is_sent_is_not_finished_upstream() -> None:
    content = content_of(MIB)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(content)
        blob = share(mirror, content, complete=False)
        blob.file.truncate(5000)
        blob.failure = DigestMismatch("wrong content")
        assert mirror.request(path_of(content))[1] == content[:5000]
        assert not origin.asked


def test_what_was_sent_and_is_not_held_any_more_is_never_made_a_complete_body(monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(MIB)
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(content)
        blob = share(mirror, content, complete=False)
        blob.file.truncate(5000)
        monkeypatch.setattr(_Handle, "available_from", lambda _, offset: offset)
        assert mirror.request(path_of(content))[1] == content[:5000]


def test_an_empty_blob_under_another_digest_is_refused() -> None:
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        mirror.node.blobs[Digest.of(b"not empty")] = ScriptedBlob(b"")
        response, _ = mirror.request(path_of(b"not empty"))
    assert response.status == 502
