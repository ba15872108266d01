"""A lane on the loop: whom it answers, where it sends, and what it does when the time comes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from proto.datagram_lane import PROBES_MAX, Lane
from proto.datagrams import KEY_BYTES, Channel, Timing
from proto.wire.messages import Grant

KEY = bytes(KEY_BYTES)
SHORT = Timing(soon_s=0.05, late_s=0.1)
GRANT = [Grant(1, 1, 1, 1, 1)]

pytestmark = pytest.mark.asyncio


class End:
    """A supernode's lane, what it sent and said, and the channel of its peer."""

    def __init__(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self.sent: list[tuple[bytes, str]] = []
        self.delivered: list[bytes] = []
        self.signs = 0
        self.spoke = asyncio.Event()
        self.woken = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.round_trips: list[float] = []
        channel = Channel(KEY, 1, now_s, is_supernode=True, timing=SHORT)
        self.lane = Lane(channel, self._transmit, self.delivered.append, self._alive, self.woken.set, self)
        self.peer = Channel(KEY, 1, 0.0, is_supernode=False)

    def _transmit(self, datagram: bytes, address: str) -> None:
        self.sent.append((datagram, address))
        self.spoke.set()

    def count(self, event: str, count: int = 1) -> None:
        self.counts[event] += count

    def round_trip(self, seconds: float) -> None:
        self.round_trips.append(seconds)

    def _alive(self) -> None:
        self.signs += 1

    def open(self) -> None:
        self.lane.heard_datagram(self.peer.probe(0.0), "home")
        self.peer.take_datagram(self.sent[-1][0], 0.0)
        self.lane.heard_datagram(self.peer.heard(0.0), "home")
        assert self.lane.is_open

    def says(self, frame: bytes) -> bytes:
        datagram = self.peer.by_datagram(frame, 0.0)
        assert datagram is not None
        return datagram


async def test_a_new_frame_moves_the_session_and_an_old_one_does_not() -> None:
    end = End()
    end.open()
    first = end.says(b"one")
    end.lane.heard_datagram(first, "home")
    end.lane.heard_datagram(first, "elsewhere")
    end.lane.heard_datagram(end.peer.heard(0.0), "elsewhere")
    assert end.lane.send(b"grant", GRANT) == []
    assert end.sent[-1][1] == "home"
    end.lane.heard_datagram(end.says(b"two"), "moved")
    assert end.lane.send(b"grant", GRANT) == []
    assert end.sent[-1][1] == "moved"
    assert end.delivered == [b"one", b"two"]
    end.lane.close()


async def test_probes_are_answered_some_times_and_strangers_never() -> None:
    end = End()
    stranger = Channel(bytes(range(KEY_BYTES)), 1, 0.0, is_supernode=False)
    end.lane.heard_datagram(stranger.probe(0.0), "stranger")
    assert (end.sent, end.signs) == ([], 0)
    for _ in range(PROBES_MAX + 5):
        end.lane.heard_datagram(end.peer.probe(0.0), "home")
    assert len(end.sent) == PROBES_MAX
    end.lane.close()


async def test_what_was_heard_is_said_in_time_and_what_was_not_wakes_the_sender() -> None:
    end = End()
    end.open()
    end.lane.heard_datagram(end.says(b"report"), "home")
    before = len(end.sent)
    end.spoke.clear()
    async with asyncio.timeout(5):
        await end.spoke.wait()
    # Time enough for a second one.
    await asyncio.sleep(2 * SHORT.late_s)
    assert len(end.sent) == before + 1, "once"
    assert end.lane.send(b"grant", GRANT) == []
    async with asyncio.timeout(5):
        await end.woken.wait()
    assert end.counts["copied"] == 1
    assert end.counts["sent"] == len(end.sent)
    assert [end.peer.take_websocket(frame, 0.0) for frame in end.lane.lost()] == [[b"grant"]]
    assert end.counts["websocket"] == 1
    end.lane.close()


async def test_a_closed_lane_is_silent_and_deaf() -> None:
    end = End()
    end.open()
    report = end.says(b"report")
    end.lane.close()
    before = len(end.sent)
    end.lane.heard_datagram(report, "home")
    assert end.lane.say_alive()
    assert (len(end.sent), end.delivered) == (before, [])
