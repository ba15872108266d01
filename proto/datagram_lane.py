"""A session's datagrams on the event loop: sends, says in time what was heard, and wakes who sends again what was lost.

The sockets and what frames mean are the sessions' business; the rules are proto.datagrams.Channel's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from proto.datagrams import fits, is_waited_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proto.datagrams import Channel
    from proto.wire.messages import Message

AddressT = TypeVar("AddressT")

# Probes of one session that are answered.
PROBES_MAX: Final = 8


class Meter(Protocol):
    """Who counts."""

    def count(self, event: str, count: int = 1) -> None:
        """Datagrams were `sent`, of these `copied`, as nobody said the first was heard, or gone by the `websocket`."""
        ...

    def round_trip(self, seconds: float) -> None:
        """From a frame to its answer, without what the other side let that wait."""
        ...


class Lane(Generic[AddressT]):
    """One session's. `transmit` sends a datagram or loses it, `meter` counts.

    `deliver` takes a frame, `alive` hears that the other side is there, and `wake` has lost() called.
    """

    def __init__(
        self,
        channel: Channel,
        transmit: Callable[[bytes, AddressT], None],
        deliver: Callable[[bytes], None],
        alive: Callable[[], None],
        wake: Callable[[], None],
        meter: Meter,
    ) -> None:
        self._channel = channel
        self._transmit = transmit
        self._deliver = deliver
        self._alive = alive
        self._wake = wake
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._address: AddressT | None = None
        self._probes = 0
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether datagrams are known to get through both ways."""
        return self._channel.is_open

    def meet(self, address: AddressT) -> None:
        """Where the other side is."""
        self._address = address

    def probe(self) -> None:
        """Ask whether datagrams get through."""
        self._send(self._channel.probe(self._loop.time()))

    def say_alive(self) -> bool:
        """Say that we are there and what was heard, which nobody has to answer; False where datagrams do not go."""
        if self._channel.is_open:
            self._send(self._channel.heard(self._loop.time()))
        return self._channel.is_open

    def send(self, frame: bytes, batch: Sequence[Message]) -> list[bytes]:
        """Send the frame of these messages by datagram, or return what has to go by the WebSocket."""
        now_s = self._loop.time()
        datagram = None
        if fits(batch):
            datagram = self._channel.by_datagram(frame, now_s, waited_for=is_waited_for(batch))
        if datagram is None:
            return self._channel.by_websocket(frame, now_s)
        self._send(datagram)
        self._arm()
        return []

    def lost(self) -> list[bytes]:
        """What to send again by the WebSocket."""
        frames = self._channel.lost(self._loop.time())
        if frames:
            self._meter.count("websocket", len(frames))
        self._arm()
        return frames

    def heard_websocket(self, data: bytes) -> list[bytes]:
        """The frames that are next in order. Raises FrameInvalid."""
        frames = self._channel.take_websocket(data, self._loop.time())
        self._look()
        return frames

    def heard_datagram(self, data: bytes, address: AddressT) -> None:
        """Deliver what is next in order by it; nothing happens by what is not the other side's."""
        if self._closed:
            return
        was_open = self._channel.is_open
        taken = self._channel.take_datagram(data, self._loop.time())
        if taken is None:
            return
        if taken.is_fresh or self._address is None:
            # It may come from behind a translated address that changed; what is not fresh anybody may have sent again.
            self._address = address
        if taken.is_probe:
            self._probes += 1
        if (taken.is_probe and self._probes <= PROBES_MAX) or (self._channel.is_open and not was_open):
            self._send(self._channel.heard(self._loop.time()))
        if taken.round_trip_s is not None:
            self._meter.round_trip(taken.round_trip_s)
        if taken.is_whole:
            self._alive()
        for frame in taken.frames:
            self._deliver(frame)
        self._look()

    def close(self) -> None:
        """Nothing is sent or delivered any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, datagram: bytes) -> None:
        if self._address is not None and not self._closed:
            self._meter.count("sent")
            self._transmit(datagram, self._address)

    def _arm(self) -> None:
        due_s = self._channel.next_s()
        if due_s is None or self._closed:
            return
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        """Do what is due. What goes once more says what was heard as well."""
        now_s = self._loop.time()
        for datagram in self._channel.copies(now_s):
            self._meter.count("copied")
            self._send(datagram)
        if self._channel.must_say_heard(now_s):
            self._send(self._channel.heard(now_s))
        if self._channel.has_lost(now_s):
            self._wake()
        else:
            self._arm()
