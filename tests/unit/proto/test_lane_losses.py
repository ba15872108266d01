"""Two lanes between which datagrams get lost, doubled and late, on a clock of their own: what arrives, and when.

The clock nearly stands still while anything happens and jumps to the next timer, so that minutes take no time.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.datagram_lane import Lane
from proto.datagrams import KEY_BYTES, Channel, Timing
from proto.round_trip import DEVIATIONS_MIN_S
from proto.wire.messages import BlobChecked, Grant, Message, OriginStatus, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRANT: Sequence[Message] = [Grant(1, 1, 1, 1, 1)]
STORED: Sequence[Message] = [Stored(1, 1, 1, 1)]
UNHURRIED: Sequence[Message] = [OriginStatus(1, "sharing", False)]
BY_WEBSOCKET: Sequence[Message] = [BlobChecked(1, True)]
SUPERNODE, PEER = 0, 1
WEBSOCKET_S = 0.2
# A busy moment of either process, and the clock's own step.
SLACK_S = 0.05


class _Jumps(selectors.SelectSelector):
    """Nothing comes from outside: the time until the next timer is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # A turn takes some time, or a timer that is a rounding error early would come again and again.
        self.now_s += max(timeout or 0.0, 1e-6)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time is that of its timers."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now_s


@dataclass
class Way:
    """What becomes of one side's datagrams. `fate` gives the delays of the copies that arrive, none for a loss."""

    fate: Callable[[int], list[float]]
    sent: int = 0
    sent_bytes: int = 0
    # Frames as they were handed on, and when.
    got: list[tuple[bytes, float]] = field(default_factory=list)
    said_s: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

    def count(self, event: str, count: int = 1) -> None:
        self.events[event] += count

    def round_trip(self, seconds: float) -> None:
        self.events["round_trip"] += 1


class Pair:
    """A supernode's lane and a peer's, opened; `ways[side]` is what that side sends."""

    def __init__(self, fates: tuple[Callable[[int], list[float]], Callable[[int], list[float]]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.ways = [Way(fate) for fate in fates]
        self.streams: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        key = bytes(KEY_BYTES)
        self.lanes: list[Lane[str]] = [
            Lane(
                Channel(key, 1, self.loop.time(), is_supernode=side == SUPERNODE),
                lambda data, _, side=side: self._fly(side, data),  # type: ignore[misc]
                lambda frame, side=side: self.ways[1 - side].got.append((frame, self.loop.time())),  # type: ignore[misc]
                lambda: None,
                lambda side=side: self._wake(side),  # type: ignore[misc]
                self.ways[side],
            )
            for side in (SUPERNODE, PEER)
        ]
        self.lanes[PEER].meet("supernode")
        self.lanes[PEER].probe()

    def _fly(self, side: int, data: bytes) -> None:
        way = self.ways[side]
        way.sent += 1
        way.sent_bytes += len(data)
        for delay_s in way.fate(way.sent):
            self.loop.call_later(delay_s, self.lanes[1 - side].heard_datagram, data, "home")

    def _wake(self, side: int) -> None:
        self.loop.call_soon(self._woken, side)

    def _woken(self, side: int) -> None:
        self._stream(side, self.lanes[side].lost())

    def _stream(self, side: int, frames: list[bytes]) -> None:
        for data in frames:
            self.streams[side].append(data)
            self.loop.call_later(WEBSOCKET_S, self._taken, side)

    def _taken(self, side: int) -> None:
        data = self.streams[side].popleft()
        self.ways[side].got.extend((frame, self.loop.time()) for frame in self.lanes[1 - side].heard_websocket(data))

    def say(self, side: int, batch: Sequence[Message]) -> None:
        way = self.ways[side]
        frame = b"%d" % len(way.said_s)
        way.said_s.append(self.loop.time())
        self._stream(side, self.lanes[side].send(frame, batch))

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()

    def assert_each_once_and_in_order(self) -> None:
        for way in self.ways:
            assert [frame for frame, _ in way.got] == [b"%d" % number for number in range(len(way.said_s))]

    def latest_s(self) -> float:
        """The longest that a frame took."""
        return max(got_s - said_s for way in self.ways for (_, got_s), said_s in zip(way.got, way.said_s, strict=True))


def run(body: Callable[[], object]) -> None:
    """Run the coroutine function on a jumping loop."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(body())  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    doubled=st.sampled_from([0.0, 0.2]),
    delay_s=st.floats(0.0, 0.5),
    jitter_s=st.floats(0.0, 0.5),
)
def test_every_frame_is_handed_on_once_and_in_order_whatever_happens_to_datagrams(
    seed: int, loss: float, doubled: float, delay_s: float, jitter_s: float
) -> None:
    rng = random.Random(seed)

    def fate(_: int) -> list[float]:
        copies = 2 if rng.random() < doubled else 1
        return [delay_s + rng.uniform(0.0, jitter_s) for _ in range(copies) if rng.random() >= loss]

    async def body() -> None:
        pair = Pair((fate, fate))
        for _ in range(150):
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.2, 1.0)))
            pair.say(rng.choice((SUPERNODE, PEER)), rng.choice((GRANT, STORED, UNHURRIED, BY_WEBSOCKET)))
        await asyncio.sleep(60.0)
        pair.assert_each_once_and_in_order()
        pair.close()

    run(body)


def leases(
    count: int,
    piece_s: float,
    report_after_s: float,
    one_way_s: float,
    *,
    lost: tuple[int, int] | None = None,
) -> Pair:
    """Grants `piece_s` apart, the report of the piece before follows each. `lost`: side and number of its datagram."""
    found: list[Pair] = []

    def fate_of(side: int) -> Callable[[int], list[float]]:
        return lambda number: [] if (side, number) == lost else [one_way_s]

    async def body() -> None:
        pair = Pair((fate_of(SUPERNODE), fate_of(PEER)))
        await asyncio.sleep(1.0)
        for _ in range(count):
            pair.say(SUPERNODE, GRANT)
            await asyncio.sleep(report_after_s)
            pair.say(PEER, STORED)
            await asyncio.sleep(piece_s - report_after_s)
        await asyncio.sleep(30.0)
        pair.assert_each_once_and_in_order()
        pair.close()
        found.append(pair)

    run(body)
    return found[0]


def test_a_lease_is_two_datagrams_where_the_report_follows_its_grant() -> None:
    pair = leases(50, 2.0, 0.2, 0.05)
    # The probe, and "I hear you" until both know; in the end what was heard, alone.
    assert sum(way.sent for way in pair.ways) <= 2 * 50 + 5
    assert [way.events["copied"] for way in pair.ways] == [0, 0]
    assert [way.events["websocket"] for way in pair.ways] == [0, 0]


def test_a_report_that_comes_late_costs_two_datagrams_more() -> None:
    pair = leases(50, 2.0, 1.0, 0.05)
    assert sum(way.sent for way in pair.ways) <= 4 * 50 + 5
    assert [way.events["copied"] for way in pair.ways] == [0, 0]


@settings(max_examples=80, deadline=None)
@given(
    side=st.sampled_from([SUPERNODE, PEER]),
    number=st.integers(12, 40),
    report_after_s=st.floats(0.0, 1.5),
    one_way_s=st.floats(0.0005, 0.15),
)
def test_one_lost_datagram_holds_a_frame_up_for_two_round_trips_and_half_a_second(
    side: int, number: int, report_after_s: float, one_way_s: float
) -> None:
    pair = leases(40, 2.0, report_after_s, one_way_s, lost=(side, number))
    round_trip_s = 2 * one_way_s
    within_s = 2 * round_trip_s + Timing().soon_s + DEVIATIONS_MIN_S + one_way_s + SLACK_S
    assert pair.latest_s() <= within_s
    assert [way.events["websocket"] for way in pair.ways] == [0, 0]


@pytest.mark.parametrize("one_way_s", [0.001, 0.05, 0.4])
def test_where_nothing_is_lost_nothing_goes_twice(one_way_s: float) -> None:
    pair = leases(40, 2.0, 0.3, one_way_s)
    assert [way.events["copied"] for way in pair.ways] == [0, 0]
    assert pair.latest_s() == pytest.approx(one_way_s)
