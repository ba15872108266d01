"""Registries that refuse, babble, break off or fall silent: what the reader makes of it, and how it is cancelled."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import UpstreamKind
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig, upstream_from_url
from tests.support.fake_origin import FakeOrigin, Fault
from tests.unit.peer.registry.registry_harness import CONTENT, Reader, read_all, read_on, reading, refused

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_page_of_nonsense_in_an_answer_does_not_become_our_error(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=206, headers={"Content-Range": "x" * 20_000})]
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert len(str(error)) < 300


@contextlib.contextmanager
def babbling(answer: bytes, pause_s: float = 0.0) -> Iterator[tuple[Reader, UpstreamConfig]]:
    """An origin that answers one request with exactly this, a byte at a time if there is to be a pause between them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = upstream_from_url(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def babble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                with contextlib.suppress(OSError):
                    for part in [answer[i : i + 1] for i in range(len(answer))] if pause_s else [answer]:
                        connection.sendall(part)
                        time.sleep(pause_s)

        thread = threading.Thread(target=babble)
        thread.start()
        reader = Reader([upstream])
        try:
            yield reader, upstream
        finally:
            reader.close()
            thread.join()


def test_a_server_that_speaks_no_http_does_not_fill_our_error() -> None:
    with babbling(b"x" * 20_000 + b"\r\n") as (reader, upstream):
        error = refused(lambda: reader.open(upstream, Digest.of(b"")))
    assert len(str(error)) < 300


def test_a_length_of_thousands_of_digits_is_no_length() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
    with babbling(answer) as (reader, upstream), reader.open(upstream, Digest.of(b"")) as body:
        assert body.size_bytes is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UpstreamKind.DENIED),
        (403, UpstreamKind.DENIED),
        (404, UpstreamKind.UNKNOWN),
        (429, UpstreamKind.RATE_LIMITED),
        (500, UpstreamKind.UNAVAILABLE),
        (503, UpstreamKind.UNAVAILABLE),
        (400, UpstreamKind.UNAVAILABLE),
    ],
)
def test_each_refusal_has_its_kind(origin: FakeOrigin, status: int, kind: UpstreamKind) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=status, headers={"Retry-After": "7"})]
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest))
    assert (error.kind, error.status) == (kind, status)
    assert error.retry_after_s == (7.0 if status in (429, 503) else None)


def test_nobody_listening_is_unavailable() -> None:
    upstream = UpstreamConfig("127.0.0.1:1", "http://127.0.0.1:1", configured=True)
    reader = Reader([upstream])
    error = refused(lambda: reader.open(upstream, Digest.of(b"")))
    assert error.kind is UpstreamKind.UNAVAILABLE


def test_plain_http_where_tls_was_meant_is_unavailable(origin: FakeOrigin) -> None:
    upstream = UpstreamConfig(origin.authority, f"https://{origin.authority}", configured=True)
    reader = Reader([upstream])
    error = refused(lambda: reader.open(upstream, Digest.of(b"")))
    assert error.kind is UpstreamKind.UNAVAILABLE


def test_a_body_cut_short_gives_its_bytes_and_then_an_error(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(cut_after_bytes=1234)]
    with reading(origin) as reader, reader.open(origin.upstream, digest) as response:
        buffer = memoryview(bytearray(10_000))
        error = refused(lambda: read_on(response, buffer))
        assert error.kind is UpstreamKind.UNAVAILABLE
        assert response.position == 1234


def test_silence_within_a_body_loses_no_byte_received(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(stall_after_bytes=70_000)]
    with reading(origin, read_s=2.0) as reader, reader.open(origin.upstream, digest) as response:
        wait_until(lambda: origin.stalled == 1)
        buffer = memoryview(bytearray(len(CONTENT)))
        error = refused(lambda: read_on(response, buffer))
        assert error.kind is UpstreamKind.UNAVAILABLE
        assert response.position == 70_000


@pytest.mark.parametrize(
    "fault",
    [
        Fault(content_range="bytes 1-10/256000"),
        Fault(content_range="bytes 0-300000/400000"),
        Fault(content_range="nonsense"),
        Fault(content_length=5000),
        Fault(status=206),
    ],
)
def test_headers_that_contradict_the_request_are_an_error(origin: FakeOrigin, fault: Fault) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [fault]
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest, end=1000))
    assert error.kind is UpstreamKind.CONTENT


def test_a_body_longer_than_its_range_is_an_error(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(surplus=b"more")]
    with reading(origin) as reader:
        error = refused(lambda: read_all(reader.open(origin.upstream, digest, end=1000)))
    assert error.kind is UpstreamKind.CONTENT


def test_a_416_is_told_without_reading_its_body(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with reading(origin) as reader:
        error = refused(lambda: reader.open(origin.upstream, digest, start=len(CONTENT)))
    assert (error.kind, error.status) == (UpstreamKind.CONTENT, 416)


def test_cancelling_wakes_a_reader(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(stall_after_bytes=10)]
    cancel = Cancellation()
    with (
        reading(origin, read_s=10 * WAIT_S) as reader,
        reader.open(origin.upstream, digest, cancel=cancel) as response,
    ):
        wait_until(lambda: origin.stalled == 1)
        timer = threading.Timer(0.1, cancel.cancel)
        timer.start()
        buffer = memoryview(bytearray(100))
        with pytest.raises(FetchCancelled):
            read_on(response, buffer)
        # The origin has not moved meanwhile.
        assert origin.stalled == 1
        timer.join()


@contextlib.contextmanager
def a_silent_origin() -> Iterator[tuple[Reader, UpstreamConfig]]:
    """It takes connections and never answers; with a reader that knows it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        authority = f"127.0.0.1:{silent.getsockname()[1]}"
        upstream = UpstreamConfig(authority, f"http://{authority}", configured=True)
        yield Reader([upstream]), upstream


def test_cancelling_wakes_a_thread_that_waits_for_an_answer() -> None:
    cancel = Cancellation()
    timer = threading.Timer(0.1, cancel.cancel)
    with a_silent_origin() as (reader, upstream):
        timer.start()
        with pytest.raises(FetchCancelled):
            reader.open(upstream, Digest.of(b""), cancel=cancel)
    timer.join()
