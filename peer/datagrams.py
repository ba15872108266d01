"""This node's UDP socket for one session: to the address that the session's WebSocket is connected to.

It opens, asks some times whether datagrams get through, and hands on what comes. No answer: the session keeps to TCP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final

from proto.datagram_lane import Lane
from proto.datagrams import KEY_BYTES, Channel
from proto.errors import FrameInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.datagram_lane import Meter
    from proto.wire.messages import Welcome

logger = logging.getLogger(__name__)

# Before each probe; without an answer to the last one, datagrams do not get through.
PROBE_AFTER_S: Final = (0.0, 1.0, 3.0)
READ_BYTES: Final = 2048
# Read in one go, before others have their turn of the loop.
READ_MAX: Final = 64


class Datagrams:
    """One session's; close() in every case. On the event loop. Raises FrameInvalid for what no Welcome says."""

    def __init__(
        self,
        host: str,
        welcome: Welcome,
        deliver: Callable[[bytes], None],
        alive: Callable[[], None],
        wake: Callable[[], None],
        meter: Meter,
    ) -> None:
        """See Lane for what is called."""
        if len(welcome.key) != KEY_BYTES or not 0 < welcome.session < 1 << 32 or not 0 < welcome.datagram_port < 65536:
            raise FrameInvalid("Welcome: a UDP port, a session of 4 bytes and a key of 16 expected")
        self._loop = asyncio.get_running_loop()
        channel = Channel(welcome.key, welcome.session, self._loop.time(), is_supernode=False)
        self.lane: Final[Lane[str]] = Lane(channel, self._transmit, deliver, alive, wake, meter)
        self._timers: list[asyncio.TimerHandle] = []
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect((host, welcome.datagram_port))
        except OSError as error:
            logger.debug("no_datagrams host=%s reason=%s", host, error.strerror)
            return
        self.lane.meet(host)
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._timers = [self._loop.call_later(after_s, self._probe) for after_s in PROBE_AFTER_S]

    def close(self) -> None:
        """Idempotent."""
        self.lane.close()
        for timer in self._timers:
            timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _probe(self) -> None:
        if not self.lane.is_open:
            self.lane.probe()

    def _readable(self) -> None:
        for _ in range(READ_MAX):
            try:
                datagram = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # Nobody listens there, says a packet on the way back: silence, for the lane.
                continue
            self.lane.heard_datagram(datagram, "")
            if self._socket.fileno() < 0:
                return

    def _transmit(self, datagram: bytes, _: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError:
            # Lost, as on the way: it goes again.
            return
