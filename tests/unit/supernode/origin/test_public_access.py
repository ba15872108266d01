"""The public check: one HEAD for all who ask, remembered as long as it may be and no longer."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.registry.base import OtherSize
from peer.registry.queues import AT_ONCE, UpstreamQueues, Work, ignore
from proto.errors import ConfigError, LayercastError, UpstreamError, UpstreamKind
from proto.ids import Digest, PeerId
from proto.wire.messages import Source
from supernode.origin import public_access
from supernode.origin.public_access import PublicAccess
from supernode.state.sqlite import SqliteState
from supernode.state.thread import StateThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio

BLOB = Digest.of(b"blob")
ONE, OTHER = PeerId(b"1" * 32), PeerId(b"2" * 32)
SOURCE = Source("registry.example", "library/thing")


class Origin:
    """Answers HEADs as scripted: a size, None, or an error."""

    def __init__(self) -> None:
        self.answer: int | LayercastError | None = 1000
        self.asked = 0
        self.digests: list[Digest] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def head(self, source: Source, digest: Digest) -> int | None:
        self.asked += 1
        self.digests.append(digest)
        if source.upstream == SOURCE.upstream:
            self.may_answer.wait(WAIT_S)
        if isinstance(self.answer, LayercastError):
            raise self.answer
        return self.answer


class Bench:
    def __init__(self, state: StateThread) -> None:
        self.origin = Origin()
        self.now_s = 1_000_000.0
        self.state = state
        self.queues = UpstreamQueues(ignore)
        self.publicity = self.new()

    def new(self, slow_s: float = WAIT_S, stale_s: float = 1000.0) -> PublicAccess:
        return PublicAccess(
            self.origin.head,
            self.state,
            self.queues,
            clock=lambda: self.now_s,
            unix_clock=lambda: self.now_s,
            fresh_s=100.0,
            stale_s=stale_s,
            slow_s=slow_s,
        )

    def fails(self, kind: UpstreamKind, retry_after_s: float | None = None) -> None:
        self.origin.answer = UpstreamError("no", kind, retry_after_s=retry_after_s)

    async def reason(self) -> str:
        return (await self.publicity.check(SOURCE, BLOB)).reason


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    state = StateThread(SqliteState(tmp_path / "state.sqlite"))
    bench = Bench(state)
    yield bench
    bench.origin.may_answer.set()
    await bench.publicity.close()
    await asyncio.to_thread(bench.queues.close)
    state.close()


async def test_many_ask_and_the_origin_is_asked_once(bench: Bench) -> None:
    bench.origin.may_answer.clear()
    asking = [asyncio.create_task(bench.publicity.check(SOURCE, BLOB)) for _ in range(50)]
    await asyncio.to_thread(wait_until, lambda: bench.origin.asked > 0)
    bench.origin.may_answer.set()
    assert {(await each).size_bytes for each in asking} == {1000}
    assert bench.origin.asked == 1


async def test_it_is_remembered_while_fresh_then_asked_again(bench: Bench) -> None:
    await bench.reason()
    bench.now_s += 99
    await bench.reason()
    assert bench.origin.asked == 1
    bench.now_s += 2
    await bench.reason()
    assert bench.origin.asked == 2


async def test_another_process_remembers_too_and_for_no_longer(bench: Bench) -> None:
    await bench.reason()
    for asked, pause_s in ((1, 99.0), (2, 2.0)):
        bench.now_s += pause_s
        await bench.publicity.close()
        bench.publicity = bench.new()
        assert await bench.reason() == ""
        assert bench.origin.asked == asked


async def test_whoever_only_holds_a_blob_has_the_origin_asked_nothing_however_long_ago_it_was(bench: Bench) -> None:
    assert await bench.publicity.recall(SOURCE, BLOB) is None
    await bench.reason()
    bench.now_s += 1e6
    bench.publicity = bench.new()
    verdict = await bench.publicity.recall(SOURCE, BLOB)
    assert verdict is not None
    assert (verdict.shared, verdict.age_s, bench.origin.asked) == (True, float("inf"), 1)
    assert await bench.reason() == ""
    assert bench.origin.asked == 2


async def test_a_word_is_as_old_as_its_question(bench: Bench) -> None:
    assert (await bench.publicity.check(SOURCE, BLOB)).age_s == 0.0
    bench.now_s += 40
    assert (await bench.publicity.check(SOURCE, BLOB)).age_s == 40.0
    bench.origin.may_answer.clear()
    bench.now_s += 60
    asking = asyncio.create_task(bench.publicity.check(SOURCE, BLOB))
    await asyncio.to_thread(wait_until, lambda: bench.origin.asked == 2)
    bench.now_s += 5
    bench.origin.may_answer.set()
    assert (await asking).age_s == 5.0


@pytest.mark.parametrize("kind", [UpstreamKind.UNAVAILABLE, UpstreamKind.RATE_LIMITED])
async def test_an_expired_word_counts_no_more_though_the_origin_is_down(bench: Bench, kind: UpstreamKind) -> None:
    bench.publicity = bench.new(stale_s=0.0)
    await bench.reason()
    bench.fails(kind)
    bench.now_s += 100
    assert await bench.reason() == kind.value


async def test_an_expired_word_counts_no_more_though_the_origin_hangs(bench: Bench) -> None:
    assert await bench.reason() == ""
    await bench.publicity.close()
    bench.publicity = bench.new(slow_s=0.1, stale_s=0.0)
    bench.origin.may_answer.clear()
    bench.now_s += 100
    assert await bench.reason() == "slow"


async def test_where_the_operator_lets_an_old_word_count_it_does_for_once(bench: Bench) -> None:
    assert await bench.reason() == ""
    await bench.publicity.close()
    bench.publicity = bench.new(slow_s=0.1)
    # It is read from the state here, however long that takes.
    assert await bench.publicity.recall(SOURCE, BLOB) is not None
    bench.origin.may_answer.clear()
    bench.now_s += 500
    verdict = await bench.publicity.check(SOURCE, BLOB)
    assert (verdict.shared, verdict.age_s) == (True, float("inf"))


async def test_two_hundred_nodes_cost_the_origin_one_question_in_that_time(bench: Bench) -> None:
    for _ in range(36):
        await asyncio.gather(*(bench.publicity.check(SOURCE, BLOB) for _ in range(200)))
        bench.now_s += 100
    assert bench.origin.asked == 36


async def test_an_origin_in_trouble_does_not_make_a_public_blob_private(bench: Bench) -> None:
    await bench.reason()
    bench.fails(UpstreamKind.UNAVAILABLE)
    bench.now_s += 500
    assert await bench.reason() == ""
    bench.now_s += 600
    assert await bench.reason() == "unavailable"


async def test_a_blob_that_became_private_is_forgotten(bench: Bench) -> None:
    await bench.reason()
    bench.fails(UpstreamKind.DENIED)
    bench.now_s += 101
    assert await bench.reason() == "private"
    bench.fails(UpstreamKind.UNAVAILABLE)
    bench.now_s += 10
    assert await bench.reason() == "unavailable"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (UpstreamKind.DENIED, "private"),
        (UpstreamKind.UNKNOWN, "unknown"),
        (UpstreamKind.RATE_LIMITED, "rate_limited"),
        (UpstreamKind.UNAVAILABLE, "unavailable"),
        (UpstreamKind.CONTENT, "unavailable"),
    ],
)
async def test_refusals_are_named_and_answer_for_a_moment(bench: Bench, kind: UpstreamKind, reason: str) -> None:
    bench.fails(kind)
    assert await bench.reason() == reason
    assert await bench.reason() == reason
    assert bench.origin.asked == 1
    bench.origin.answer = 1000
    bench.now_s += 10
    assert await bench.reason() == ""


async def test_retry_after_is_kept(bench: Bench) -> None:
    bench.fails(UpstreamKind.RATE_LIMITED, retry_after_s=60.0)
    assert await bench.reason() == "rate_limited"
    bench.now_s += 59
    assert await bench.reason() == "rate_limited"
    assert bench.origin.asked == 1


async def test_a_source_that_tells_no_size_is_of_no_use(bench: Bench) -> None:
    bench.origin.answer = None
    assert await bench.reason() == "unavailable"


async def test_a_file_that_the_operator_named_wrongly_refuses_the_blob_and_ends_nothing(bench: Bench) -> None:
    bench.origin.answer = ConfigError("upstream r: ca_file cannot be used")
    assert await bench.reason() == "unavailable"


async def test_one_slow_origin_keeps_no_question_to_another_waiting(bench: Bench) -> None:
    bench.origin.may_answer.clear()
    stuck = [Digest.of(b"%d" % number) for number in range(3 * AT_ONCE[Work.CHECK])]
    asking = [asyncio.create_task(bench.publicity.check(SOURCE, digest)) for digest in stuck]
    waiting = functools.partial(bench.queues.waiting, Work.CHECK, SOURCE.upstream)
    await asyncio.to_thread(wait_until, lambda: waiting() == 2 * AT_ONCE[Work.CHECK])
    other = Source("other.example", "library/thing")
    assert (await bench.publicity.check(other, BLOB)).shared
    assert waiting() == 2 * AT_ONCE[Work.CHECK]
    bench.origin.may_answer.set()
    assert all(verdict.shared for verdict in await asyncio.gather(*asking))


async def test_who_asks_again_gets_the_answer_of_an_origin_that_was_slow(bench: Bench) -> None:
    bench.publicity = bench.new(slow_s=0.1)
    bench.origin.may_answer.clear()
    assert await bench.reason() == "slow"
    bench.origin.may_answer.set()
    while (reason := await bench.reason()) == "slow":
        pass  # on a busy machine
    assert reason == ""
    assert bench.origin.asked == 1


async def test_the_time_that_is_left_is_told(bench: Bench) -> None:
    bench.fails(UpstreamKind.RATE_LIMITED, retry_after_s=60.0)
    await bench.reason()
    bench.now_s += 20
    assert (await bench.publicity.check(SOURCE, BLOB)).retry_after_s == 40.0


@pytest.mark.parametrize("kind", [UpstreamKind.DENIED, UpstreamKind.UNKNOWN, UpstreamKind.RATE_LIMITED])
async def test_a_get_that_is_refused_counts_more_than_the_head_before(bench: Bench, kind: UpstreamKind) -> None:
    await bench.reason()
    bench.publicity.contradicted(SOURCE, BLOB, UpstreamError("no", kind))
    assert await bench.reason() != ""
    bench.now_s += 10
    assert await bench.reason() == ""


async def test_the_size_that_a_get_brings_counts_more_than_a_heads(bench: Bench) -> None:
    await bench.reason()
    bench.publicity.contradicted(SOURCE, BLOB, OtherSize("other", 999))
    assert (await bench.publicity.check(SOURCE, BLOB)).size_bytes == 999


async def test_who_asks_for_much_makes_nobody_else_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several threads would note what they begin in another order.
    monkeypatch.setitem(AT_ONCE, Work.CHECK, 1)
    bench.origin.may_answer.clear()
    much = [Digest.of(bytes([number])) for number in range(100)]
    asking = [asyncio.create_task(bench.publicity.check(SOURCE, digest, ONE)) for digest in much]
    await asyncio.to_thread(wait_until, lambda: bench.origin.asked == 1)
    # The last that the first one asks for, and one of its own.
    asking += [asyncio.create_task(bench.publicity.check(SOURCE, digest, OTHER)) for digest in (much[-1], BLOB)]
    await asyncio.to_thread(wait_until, lambda: bench.queues.waiting(Work.CHECK, SOURCE.upstream) == 100)
    bench.origin.may_answer.set()
    await asyncio.gather(*asking)
    await asyncio.to_thread(wait_until, lambda: bench.origin.asked == 101)
    assert max(map(bench.origin.digests.index, (much[-1], BLOB))) <= 4


async def test_nobody_is_refused_for_what_others_ask(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publicity = bench.new(slow_s=0.1)
    monkeypatch.setattr(public_access, "WAITING_MAX", 80)
    bench.origin.may_answer.clear()
    much = (Digest.of(bytes([number])) for number in range(100))
    verdicts = await asyncio.gather(*(bench.publicity.check(SOURCE, digest, ONE) for digest in much))
    assert {verdict.reason for verdict in verdicts} == {"slow", "limit"}
    assert (await bench.publicity.check(SOURCE, BLOB, OTHER)).reason == "slow"


async def test_made_up_digests_fill_no_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.fails(UpstreamKind.UNKNOWN)
    for number in range(100):
        assert (await bench.publicity.check(SOURCE, Digest.of(bytes([number])))).reason == "unknown"
    assert 0 < caplog.text.count("blob_refused") < 100
