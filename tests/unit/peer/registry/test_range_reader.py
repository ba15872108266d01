"""The one loop that reads ranges, over a scripted origin: what is asked for, what comes, and what is asked again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.registry.base import NODE
from peer.registry.range_reader import RangeReader, ReadSettings
from peer.registry.retry import RetrySettings
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import StoreFull, UpstreamError, UpstreamKind
from proto.ids import Digest

if TYPE_CHECKING:
    from multidict import CIMultiDict

    from peer.registry.base import Caller, OriginAnswer, SentBody
    from peer.registry.range_reader import Range
    from peer.store.base import Chunk
    from proto.oci.routes import RegistryRequest

CONTENT = bytes(index * 7 % 256 for index in range(1_000_000))
DIGEST = Digest.of(CONTENT)
QUICK = RetrySettings(first_delay_s=0.0, without_progress_s=0.0)


@dataclass
class Body:
    """Sends `steps` bytes at a time, and fails after `cut_at` bytes of the blob."""

    start: int
    end: int | None
    size_bytes: int | None
    is_range: bool
    cut_at: int | None = None
    step: int = 100_000
    surplus: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.position = self.start
        self._last = len(CONTENT) if self.end is None else self.end

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def readinto(self, view: memoryview) -> int:
        if self.cut_at is not None and self.position >= self.cut_at:
            raise UpstreamError("cut", UpstreamKind.UNAVAILABLE)
        if self.position == self._last and self.surplus:
            return 1
        count = min(len(view), self.step, self._last - self.position)
        if self.cut_at is not None:
            count = min(count, self.cut_at - self.position)
        view[:count] = CONTENT[self.position : self.position + count]
        self.position += count
        return count

    def take_slice(self, count: int) -> None:
        """In memory."""

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedOrigin:
    """Answers with what `answers` hold, and then as asked."""

    answers: list[Body | UpstreamError] = field(default_factory=list)
    ranges: bool = True
    tells_size: bool = True
    asked: list[Range] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    host: str = "origin.test"

    def stat(
        self, repository: str, digest: Digest, caller: Caller, cancel: Cancellation, *, manifest: bool = False
    ) -> int | None:
        return len(CONTENT)

    def open_range(
        self,
        repository: str,
        digest: Digest,
        start: int,
        end: int | None,
        caller: Caller,
        cancel: Cancellation,
        *,
        manifest: bool = False,
    ) -> Body:
        self.asked.append((start, end))
        answer = self.answers.pop(0) if self.answers else self.usual(start, end)
        if isinstance(answer, UpstreamError):
            raise answer
        self.bodies.append(answer)
        return answer

    def usual(self, start: int, end: int | None, cut_at: int | None = None) -> Body:
        size = len(CONTENT) if self.tells_size else None
        if not self.ranges or (start == 0 and end is None):
            return Body(0, size, size, False, cut_at)
        return Body(start, len(CONTENT) if end is None else end, len(CONTENT), True, cut_at)

    def write(
        self,
        method: str,
        request: RegistryRequest,
        headers: CIMultiDict[str],
        body: SentBody | None,
        cancel: Cancellation,
    ) -> OriginAnswer:
        raise AssertionError("nobody writes here")

    def tag_digest(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> Digest:
        raise NotImplementedError

    def tags(self, repository: str, most: int, caller: Caller, cancel: Cancellation) -> list[str]:
        raise NotImplementedError

    def tagged(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> bytes:
        raise AssertionError("nobody asks for a tag here")

    def ask_realm(
        self, method: str, url: str, headers: CIMultiDict[str], body: SentBody | None, cancel: Cancellation
    ) -> OriginAnswer:
        raise AssertionError("nobody logs in here")

    async def manifest(self, method: str, request: RegistryRequest, headers: CIMultiDict[str]) -> OriginAnswer:
        raise AssertionError("no blob comes this way")


class Sink:
    """Keeps what came, and checks that it is what belongs there."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def write(self, offset: int, chunk: Chunk) -> None:
        assert isinstance(chunk, memoryview)
        assert bytes(chunk) == CONTENT[offset : offset + len(chunk)]
        if self.ranges and self.ranges[-1][1] == offset:
            self.ranges[-1] = (self.ranges[-1][0], offset + len(chunk))
        else:
            self.ranges.append((offset, offset + len(chunk)))


def reader(
    origin: ScriptedOrigin, size_bytes: int | None = len(CONTENT), received: list[int] | None = None
) -> RangeReader:
    counted = received if received is not None else []
    return RangeReader(origin, "name", DIGEST, size_bytes, ReadSettings(counted.append, QUICK), caller=NODE)


def read(origin: ScriptedOrigin, *wanted: Range, size_bytes: int | None = len(CONTENT)) -> list[tuple[int, int]]:
    sink = Sink()
    reader(origin, size_bytes).read(list(wanted), sink.write, Cancellation())
    assert all(body.closed for body in origin.bodies)
    return sink.ranges


def unavailable(retry_after_s: float | None = None) -> UpstreamError:
    return UpstreamError("down", UpstreamKind.UNAVAILABLE, retry_after_s=retry_after_s)


def test_the_whole_blob_is_asked_for_plainly() -> None:
    origin = ScriptedOrigin()
    assert read(origin, (0, len(CONTENT))) == [(0, len(CONTENT))]
    assert origin.asked == [(0, None)]


def test_ranges_come_in_the_order_that_they_are_wanted_in() -> None:
    origin = ScriptedOrigin()
    assert read(origin, (500_000, 600_000), (10, 20)) == [(500_000, 600_000), (10, 20)]
    assert origin.asked == [(500_000, 600_000), (10, 20)]


def test_of_a_whole_blob_that_comes_for_a_range_all_that_is_wanted_is_taken() -> None:
    origin = ScriptedOrigin(ranges=False)
    assert read(origin, (500_000, 600_000), (10, 20)) == [(10, 20), (500_000, 600_000)]
    assert len(origin.asked) == 1


def test_a_cut_body_is_resumed_at_the_byte_reached() -> None:
    origin = ScriptedOrigin()
    origin.answers = [origin.usual(1000, 900_000, cut_at=333_333)]
    assert read(origin, (1000, 900_000)) == [(1000, 900_000)]
    assert origin.asked == [(1000, 900_000), (333_333, 900_000)]


def test_a_range_that_the_origin_shortens_is_asked_for_again() -> None:
    origin = ScriptedOrigin()
    origin.answers = [origin.usual(1000, 2000)]
    assert read(origin, (1000, 5000)) == [(1000, 5000)]
    assert origin.asked == [(1000, 5000), (2000, 5000)]


def test_a_blob_of_unknown_size_ends_where_its_body_does() -> None:
    origin = ScriptedOrigin(tells_size=False)
    assert read(origin, (0, None), size_bytes=None) == [(0, len(CONTENT))]
    assert origin.asked == [(0, None)]


def test_the_size_that_the_first_body_tells_holds_for_the_next() -> None:
    origin = ScriptedOrigin()
    origin.answers = [origin.usual(0, None, cut_at=600), Body(600, 700, 700, True)]
    with pytest.raises(UpstreamError) as caught:
        read(origin, (0, None), size_bytes=None)
    assert caught.value.kind is UpstreamKind.CONTENT


def test_a_body_that_was_opened_already_is_the_first() -> None:
    origin, sink = ScriptedOrigin(), Sink()
    body = origin.usual(100, 300, cut_at=200)
    reader(origin).read([(100, 300)], sink.write, Cancellation(), body)
    assert (sink.ranges, origin.asked, body.closed) == ([(100, 300)], [(200, 300)], True)


def test_an_empty_range_asks_for_nothing_more_than_its_body() -> None:
    body = Body(0, 0, 0, False)
    reader(ScriptedOrigin(), size_bytes=0).read([(0, 0)], Sink().write, Cancellation(), body)
    assert body.closed


def test_what_was_skipped_counts_as_received_too() -> None:
    origin, counted = ScriptedOrigin(ranges=False), list[int]()
    reader(origin, received=counted).read([(900_000, 900_010)], Sink().write, Cancellation())
    assert sum(counted) == 900_010


@pytest.mark.parametrize("body", [Body(0, 999, 999, False), Body(0, 1000, len(CONTENT), False, surplus=1)])
def test_a_body_of_another_size_is_wrong_content(body: Body) -> None:
    body.end = body.end if body.size_bytes == 999 else len(CONTENT)
    body.__post_init__()
    with pytest.raises(UpstreamError) as caught:
        read(ScriptedOrigin([body]), (0, len(CONTENT)))
    assert caught.value.kind is UpstreamKind.CONTENT


@pytest.mark.parametrize("kind", [UpstreamKind.DENIED, UpstreamKind.UNKNOWN, UpstreamKind.CONTENT])
def test_what_would_be_answered_the_same_is_not_asked_again(kind: UpstreamKind) -> None:
    origin = ScriptedOrigin([UpstreamError("no", kind)])
    with pytest.raises(UpstreamError):
        read(origin, (0, 10))
    assert len(origin.asked) == 1


def test_an_origin_that_stays_down_is_given_up_with_its_error() -> None:
    origin = ScriptedOrigin([unavailable() for _ in range(10)])
    with pytest.raises(UpstreamError, match="down"):
        read(origin, (0, 10))
    assert len(origin.asked) == QUICK.failures_min


def test_a_long_retry_after_is_not_waited_for() -> None:
    origin = ScriptedOrigin([unavailable(retry_after_s=21.0)])
    with pytest.raises(UpstreamError, match="down"):
        read(origin, (0, 10))
    assert len(origin.asked) == 1


def test_what_the_sink_raises_ends_it_and_what_it_had_not_taken_stays_wanted() -> None:
    origin = ScriptedOrigin()

    def full(offset: int, chunk: Chunk) -> None:
        raise StoreFull("no room")

    with pytest.raises(StoreFull):
        reader(origin).read([(0, 10)], full, Cancellation())
    assert len(origin.asked) == 1
    assert origin.bodies[0].closed


def test_a_pause_is_ended_by_cancelling() -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(FetchCancelled):
        reader(ScriptedOrigin([unavailable()])).read([(0, 10)], Sink().write, cancel)


@given(
    st.lists(st.integers(0, len(CONTENT)), min_size=2, max_size=8, unique=True),
    st.lists(st.one_of(st.integers(0, len(CONTENT)), st.none()), max_size=4),
    st.booleans(),
)
def test_any_ranges_come_once_each_from_an_origin_that_cuts(
    borders: list[int], cuts: list[int | None], ranges: bool
) -> None:
    borders.sort()
    wanted: list[Range] = list(zip(borders[::2], borders[1::2], strict=False))
    origin = ScriptedOrigin(ranges=ranges)
    patient = RetrySettings(first_delay_s=0.0, failures_min=100)
    sink = Sink()
    usual = origin.usual

    def cutting(start: int, end: int | None) -> Body:
        return usual(start, end, cut_at=cuts.pop() if cuts else None)

    origin.usual = cutting  # type: ignore[method-assign, assignment]
    RangeReader(origin, "name", DIGEST, len(CONTENT), ReadSettings(retry=patient)).read(
        list(wanted), sink.write, Cancellation()
    )
    merged = Sink()
    for start, end in sorted(sink.ranges):
        merged.write(start, memoryview(CONTENT)[start:end])
    expected = Sink()
    for first, last in zip(borders[::2], borders[1::2], strict=False):
        expected.write(first, memoryview(CONTENT)[first:last])
    assert merged.ranges == expected.ranges
