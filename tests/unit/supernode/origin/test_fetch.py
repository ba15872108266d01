"""Fetching from an origin that cuts, stalls, lies, limits, or has no ranges: each byte reaches the sink once."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.registry.base import OtherSize
from peer.registry.client import OriginHttp
from peer.registry.limits import OriginLimits
from peer.registry.origins import Origins
from peer.registry.range_reader import ReadSettings
from peer.registry.retry import RetrySettings
from peer.registry.sockets import OriginTimeouts
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import StoreFull, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.ranges import parse_ranges
from proto.oci.upstreams import UpstreamTable
from proto.pieces import KIB, PieceLayout
from proto.wire.messages import Source
from supernode.origin.byte_ranges import WindowSettings
from supernode.origin.sources import OriginFetcher
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.store.base import Chunk

PIECE = 64 * KIB
CONTENT = bytes(i * 31 % 251 for i in range(1000 * 1000))
LAYOUT = PieceLayout(len(CONTENT), PIECE)
WINDOWS = WindowSettings(
    first_bytes=12 * PIECE, trial_bytes=PIECE, align_bytes=PIECE, measure_bytes=PIECE, measure_s=0.001, gain_min=0.0
)
ONE_STREAM = WindowSettings(first_bytes=4 * PIECE, align_bytes=PIECE, streams_max=1)
PATIENT = RetrySettings(first_delay_s=0.001, delay_max_s=0.01, without_progress_s=WAIT_S)
# For origins that are to be given up.
SHORT = RetrySettings(first_delay_s=0.01, delay_max_s=0.05, without_progress_s=0.2)

ONE_MORE = bytes([*range(1, 256), 255])


@dataclass
class Received:
    """A sink that notes what came."""

    content: bytearray = field(default_factory=lambda: bytearray(len(CONTENT)))
    times: bytearray = field(default_factory=lambda: bytearray(len(CONTENT)))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, offset: int, view: Chunk) -> None:
        assert isinstance(view, memoryview)
        with self.lock:
            self.content[offset : offset + len(view)] = view
            self.times[offset : offset + len(view)] = self.times[offset : offset + len(view)].translate(ONE_MORE)

    def assert_exactly(self, ranges: list[tuple[int, int]], content: bytes = CONTENT) -> None:
        """These bytes came, each once, as they are in the blob, and no others."""
        expected = bytearray(len(CONTENT))
        for start, end in ranges:
            expected[start:end] = b"\x01" * (end - start)
            assert self.content[start:end] == content[start:end]
        assert self.times == expected


def asked_ranges(origin: FakeOrigin) -> list[tuple[int, int]]:
    ranges = [one for asked in origin.blob_requests() for one in parse_ranges(asked.range)]
    return [found for asked in ranges if (found := asked.resolve(len(CONTENT))) is not None]


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Adjacent ranges made one; overlapping ones stay apart."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


@contextlib.contextmanager
def origin_of(
    *origins: FakeOrigin, windows: WindowSettings = ONE_STREAM, retry: RetrySettings = PATIENT, read_s: float = WAIT_S
) -> Iterator[OriginFetcher]:
    table = UpstreamTable.build(sections=[origin.upstream for origin in origins])
    http = OriginHttp(OriginTimeouts(connect_s=WAIT_S, tls_s=WAIT_S, read_s=read_s))
    with contextlib.closing(Origins(lambda: table, http=http)) as known:
        yield OriginFetcher(known, ReadSettings(retry=retry), windows)


def fetch(
    registry: OriginFetcher,
    digest: Digest,
    received: Received,
    *origins: FakeOrigin,
    missing: list[tuple[int, int]] | None = None,
    cancel: Cancellation | None = None,
) -> None:
    sources = tuple(Source(origin.authority, "name") for origin in origins)
    wanted = [(0, len(CONTENT))] if missing is None else missing
    registry.fetch_ranges(sources, digest, len(CONTENT), wanted, received.write, cancel or Cancellation())


WHOLE = [(0, len(CONTENT))]


FAULTS = st.one_of(
    st.builds(Fault, cut_after_bytes=st.integers(0, 300_000)), st.just(Fault(status=503)), st.just(Fault())
)


def test_what_comes_is_told_by_its_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    with fake_origin() as origin, origin_of(origin, windows=WINDOWS) as registry:
        monkeypatch.setattr(
            OriginLimits, "received", lambda _, upstream, size_bytes: told.append((upstream, size_bytes))
        )
        fetch(registry, origin.add(CONTENT), Received(), origin)
    assert {upstream for upstream, _ in told} == {origin.authority}
    assert sum(size_bytes for _, size_bytes in told) == len(CONTENT)


@settings(max_examples=60)
@given(st.integers(0, LAYOUT.full_mask), st.sampled_from([ONE_STREAM, WINDOWS]))
def test_any_set_of_missing_ranges_is_asked_for_exactly_once(pieces: int, windows: WindowSettings) -> None:
    missing, received = LAYOUT.byte_ranges(pieces), Received()
    with fake_origin() as origin, origin_of(origin, windows=windows) as registry:
        fetch(registry, origin.add(CONTENT), received, origin, missing=missing)
    received.assert_exactly(missing)
    assert joined(asked_ranges(origin)) == missing


@settings(max_examples=60)
@given(
    st.integers(1, LAYOUT.full_mask),
    st.lists(FAULTS, max_size=6),
    st.sampled_from([ONE_STREAM, WINDOWS]),
    st.booleans(),
)
def test_a_flaky_origin_is_resumed_at_the_byte_reached(
    pieces: int, faults: list[Fault], windows: WindowSettings, chunked: bool
) -> None:
    missing, received = LAYOUT.byte_ranges(pieces), Received()
    with fake_origin() as origin, origin_of(origin, windows=windows) as registry:
        origin.faults, origin.chunked = list(faults), chunked
        fetch(registry, origin.add(CONTENT), received, origin, missing=missing)
    received.assert_exactly(missing)


def test_a_cut_body_is_resumed_by_range(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(cut_after_bytes=100_001)]
    received = Received()
    with origin_of(origin) as registry:
        fetch(registry, digest, received, origin)
    received.assert_exactly(WHOLE)
    assert asked_ranges(origin)[:2] == [(0, 4 * PIECE), (100_001, 4 * PIECE)]


def test_an_origin_without_ranges_is_read_in_one_stream(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.ranges = False
    received = Received()
    with origin_of(origin, windows=WINDOWS) as registry:
        fetch(registry, digest, received, origin)
    received.assert_exactly(WHOLE)
    assert len(origin.asked) == 1


def test_of_an_origin_without_ranges_the_bytes_held_are_skipped(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.ranges = False
    origin.faults = [Fault(cut_after_bytes=5 * PIECE + 10)]
    missing = [(PIECE, 2 * PIECE), (4 * PIECE, 7 * PIECE), (14 * PIECE, len(CONTENT))]
    received = Received()
    with origin_of(origin) as registry:
        fetch(registry, digest, received, origin, missing=missing)
    received.assert_exactly(missing)
    assert len(origin.asked) == 2


def test_a_stall_is_ended_and_resumed(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(stall_after_bytes=90_000)]
    received = Received()
    with origin_of(origin, read_s=0.3) as registry:
        fetch(registry, digest, received, origin)
    received.assert_exactly(WHOLE)
    # A busy machine may have it wait as long in other places too: it goes on there.
    assert asked_ranges(origin)[1][0] <= 90_000


def test_further_streams_open_only_after_a_206_and_where_they_pay(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    # The first window comes little by little, and is not over before the second is asked for.
    origin.bytes_per_s = 1_000_000.0
    origin.faults = [Fault(stall_after_bytes=11 * PIECE)]

    def go_on_at_the_second() -> None:
        wait_until(lambda: len(origin.asked) >= 2)
        origin.released.set()

    releaser = threading.Thread(target=go_on_at_the_second)
    releaser.start()
    received = Received()
    with origin_of(origin, windows=WINDOWS) as registry:
        fetch(registry, digest, received, origin)
    releaser.join()
    received.assert_exactly(WHOLE)
    assert asked_ranges(origin)[:2] == [(0, 12 * PIECE), (12 * PIECE, 13 * PIECE)]


def test_a_further_stream_that_is_refused_does_no_harm(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.bytes_per_s = 2_000_000.0
    origin.faults = [Fault(), Fault(status=403)]
    received = Received()
    with origin_of(origin, windows=WINDOWS) as registry:
        fetch(registry, digest, received, origin)
    received.assert_exactly(WHOLE)


def test_an_origin_that_shortens_ranges_is_asked_for_the_rest(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(content_range=f"bytes 0-9999/{len(CONTENT)}", content_length=10_000, cut_after_bytes=10_000)]
    received = Received()
    with origin_of(origin) as registry:
        fetch(registry, digest, received, origin)
    received.assert_exactly(WHOLE)
    assert asked_ranges(origin)[1] == (10_000, 4 * PIECE)


@pytest.mark.parametrize(
    "fault",
    [Fault(surplus=b"x"), Fault(content_range="bytes 0-999/1000"), Fault(content_range="bytes 5-9/1000000")],
)
def test_an_origin_that_lies_about_length_is_given_up(origin: FakeOrigin, fault: Fault) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [fault]
    with origin_of(origin) as registry, pytest.raises(UpstreamError) as caught:
        fetch(registry, digest, Received(), origin)
    assert caught.value.kind is UpstreamKind.CONTENT


@pytest.mark.parametrize("size_bytes", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_blob_of_another_size_than_announced_is_given_up(origin: FakeOrigin, size_bytes: int) -> None:
    digest = origin.add(CONTENT)
    source = Source(origin.authority, "name")
    with origin_of(origin) as registry, pytest.raises(UpstreamError) as caught:
        registry.fetch_ranges((source,), digest, size_bytes, [(0, size_bytes)], Received().write, Cancellation())
    assert caught.value.kind is UpstreamKind.CONTENT


def test_a_length_announced_too_long_is_resumed_and_ends_as_an_error(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.ranges = False
    origin.faults = [Fault(content_length=len(CONTENT) + 5)]
    with origin_of(origin) as registry, pytest.raises(UpstreamError) as caught:
        fetch(registry, digest, Received(), origin)
    assert caught.value.kind is UpstreamKind.CONTENT


def test_retry_after_is_obeyed_for_the_blob_that_it_was_said_of(origin: FakeOrigin) -> None:
    limited, other = origin.add(CONTENT), origin.add(CONTENT[::-1])
    origin.faults = [Fault(status=429, headers={"Retry-After": "600"})]
    received = Received()
    with origin_of(origin) as registry:
        with pytest.raises(UpstreamError):
            fetch(registry, limited, Received(), origin)
        fetch(registry, other, received, origin)
        with pytest.raises(UpstreamError):
            registry.public_size(Source(origin.authority, "name"), limited, Cancellation())
    received.assert_exactly(WHOLE, CONTENT[::-1])
    assert sum(str(limited) in asked.target for asked in origin.asked) == 1


def test_a_short_retry_after_is_waited_for(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=429, headers={"Retry-After": "1"})]
    received, started_s = Received(), time.monotonic()
    with origin_of(origin) as registry:
        fetch(registry, digest, received, origin)
    assert time.monotonic() - started_s >= 1.0
    received.assert_exactly(WHOLE)


def test_what_a_source_says_against_its_own_word_is_told(origin: FakeOrigin) -> None:
    """A blob of another size than the HEAD's, and one that a HEAD gives and a GET refuses."""
    shorter, refused = origin.add(CONTENT[:-1]), origin.add(CONTENT[::-1])
    told: list[tuple[Digest, UpstreamError]] = []
    with origin_of(origin) as registry:
        registry._on_contradiction = lambda source, digest, error: told.append((digest, error))
        for digest in (shorter, refused):
            origin.faults = [Fault(status=403)] if digest == refused else []
            with pytest.raises(UpstreamError):
                fetch(registry, digest, Received(), origin)
    (size_of, size), (refusal_of, refusal) = told
    assert (size_of, refusal_of, refusal.kind) == (shorter, refused, UpstreamKind.DENIED)
    assert isinstance(size, OtherSize)
    assert size.size_bytes == len(CONTENT) - 1


def test_a_long_retry_after_is_reported_at_once(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=429, headers={"Retry-After": "600"})]
    with origin_of(origin) as registry:
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                fetch(registry, digest, Received(), origin)
            assert caught.value.kind is UpstreamKind.RATE_LIMITED
            assert caught.value.retry_after_s == pytest.approx(600, abs=10)
    assert len(origin.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_the_next_source_goes_on_where_the_first_refuses(origin: FakeOrigin, status: int) -> None:
    digest = origin.add(CONTENT)
    received = Received()
    with fake_origin() as bad, origin_of(origin, bad, retry=SHORT) as registry:
        bad.add(CONTENT)
        bad.faults = [Fault(cut_after_bytes=150_000), *[Fault(status=status)] * 40]
        fetch(registry, digest, received, bad, origin)
    received.assert_exactly(WHOLE)
    assert asked_ranges(origin)[0][0] == 150_000


def test_an_origin_that_stays_down_is_an_error_within_its_time(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=503)] * 100
    with origin_of(origin, retry=SHORT) as registry, pytest.raises(UpstreamError) as caught:
        fetch(registry, digest, Received(), origin)
    assert caught.value.kind is UpstreamKind.UNAVAILABLE
    assert 3 <= len(origin.asked) < 40


def test_a_host_that_is_not_allowed_is_denied() -> None:
    table = UpstreamTable.build()
    with contextlib.closing(Origins(lambda: table)) as origins, pytest.raises(UpstreamError) as caught:
        OriginFetcher(origins).public_size(Source("10.0.0.1:5000", "name"), Digest.of(b""), Cancellation())
    assert caught.value.kind is UpstreamKind.DENIED


def test_a_full_store_ends_every_stream(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.bytes_per_s = 2_000_000.0
    writes: list[int] = []

    def full(offset: int, view: Chunk) -> None:
        writes.append(offset)
        if len(writes) > 3:
            raise StoreFull("no room")

    with origin_of(origin, windows=WINDOWS) as registry, pytest.raises(StoreFull):
        registry.fetch_ranges((Source(origin.authority, "name"),), digest, len(CONTENT), WHOLE, full, Cancellation())


def test_cancelling_ends_a_fetch_at_once(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(stall_after_bytes=1000)]
    cancel = Cancellation()

    def cancel_when_it_stalls() -> None:
        wait_until(lambda: bool(origin.stalled))
        cancel.cancel()

    canceller = threading.Thread(target=cancel_when_it_stalls)
    canceller.start()
    with origin_of(origin, read_s=10 * WAIT_S) as registry, pytest.raises(FetchCancelled):
        fetch(registry, digest, Received(), origin, cancel=cancel)
    # The origin has not moved meanwhile.
    assert origin.stalled == 1
    canceller.join()


def test_the_size_of_a_public_blob_is_told(origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    with origin_of(origin) as registry:
        assert registry.public_size(Source(origin.authority, "name"), digest, Cancellation()) == len(CONTENT)


@pytest.mark.parametrize(("status", "kind"), [(401, UpstreamKind.DENIED), (404, UpstreamKind.UNKNOWN)])
def test_a_blob_that_is_not_public_is_refused(origin: FakeOrigin, status: int, kind: UpstreamKind) -> None:
    digest = origin.add(CONTENT)
    origin.faults = [Fault(status=status)] * 2
    with origin_of(origin) as registry, pytest.raises(UpstreamError) as caught:
        registry.public_size(Source(origin.authority, "name"), digest, Cancellation())
    assert caught.value.kind is kind
