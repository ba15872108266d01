"""One snapshot an interval for everybody, and no more viewers than there may be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from supernode.console.feed import VIEWERS_MAX, Feed, TooManyViewers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.asyncio


def counted() -> Callable[[], bytes]:
    numbers = itertools.count(1)
    return lambda: b"%d" % next(numbers)


async def first(following: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await anext(following)


async def test_all_who_look_get_the_same_snapshot() -> None:
    one = Feed(counted(), interval_s=3600.0)
    async with contextlib.aclosing(one.follow()) as here, contextlib.aclosing(one.follow()) as there:
        assert (await first(here), await first(there), one.latest()) == (b"1", b"1", b"1")


async def test_a_new_one_comes_each_interval() -> None:
    one = Feed(counted(), interval_s=0.01)
    async with contextlib.aclosing(one.follow()) as here:
        assert [await first(here) for _ in range(3)] == [b"1", b"2", b"3"]


async def test_nothing_is_made_while_nobody_looks() -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b""

    Feed(make, interval_s=0.0)
    await asyncio.sleep(0)
    assert made == []


async def test_a_dear_snapshot_is_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr("supernode.console.feed.time.thread_time", lambda: next(clock))
    one = Feed(counted(), interval_s=0.0)
    # It seemed to take a second of the loop, so that the next may not be made for fifty.
    assert (one.latest(), one.latest()) == (b"1", b"1")


async def test_there_is_a_limit_on_viewers_and_who_leaves_makes_room() -> None:
    one = Feed(counted(), interval_s=3600.0)
    async with contextlib.AsyncExitStack() as looking:
        for _ in range(VIEWERS_MAX):
            await first(await looking.enter_async_context(contextlib.aclosing(one.follow())))
        with pytest.raises(TooManyViewers):
            await first(one.follow())
    assert one.viewers == 0


async def test_the_end_wakes_who_waits_for_the_next() -> None:
    one = Feed(counted(), interval_s=3600.0)
    async with contextlib.aclosing(one.follow()) as here:
        await first(here)
        waiting = asyncio.create_task(first(here))
        await asyncio.sleep(0)
        one.end()
        with pytest.raises(StopAsyncIteration):
            await waiting
