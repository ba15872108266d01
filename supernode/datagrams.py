"""The UDP port beside the sessions' TCP port: hands each datagram to the session it names, and sends theirs.

It answers nobody itself: what is of no session, or not authentic, is dropped without a word.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from proto import datagrams
from proto.datagram_lane import Lane
from proto.datagrams import KEY_BYTES, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.datagram_lane import Meter

logger = logging.getLogger(__name__)

# Reports of a whole cluster come at once; the kernel allows less where net.core.rmem_max says so.
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
# Read in one go, before others have their turn of the loop.
READ_MAX: Final = 64
READ_BYTES: Final = 2048

# As the socket has it: (host, port), and two more with IPv6.
Address = tuple[Any, ...]


class DatagramPort:
    """One a supernode. `number` is 0 where there is no such port, or none is wanted: sessions then keep to TCP."""

    def __init__(self, beside: socket.socket, meter: Meter, *, wanted: bool) -> None:
        self._meter = meter
        self._lanes: dict[int, Lane[Address]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self.number = 0
        if not wanted:
            return
        address = beside.getsockname()
        opened = socket.socket(beside.family, socket.SOCK_DGRAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            opened.setblocking(False)
            opened.bind(address)
        except OSError as error:
            opened.close()
            logger.warning("no_datagrams %s/udp: %s; free it, control takes more of the link", address, error.strerror)
            return
        self._socket = opened
        self.number = int(address[1])

    def start(self) -> None:
        """Read, on the running loop."""
        if self._socket is not None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def stop(self) -> None:
        """Read no more, on the loop."""
        if self._loop is not None and self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        """After stop(), from any thread."""
        if self._socket is not None:
            self._socket.close()

    def join(self, deliver: Callable[[bytes], None], alive: Callable[[], None], wake: Callable[[], None]) -> Membership:
        """A session's part in it; see Lane for what it calls."""
        session = secrets.randbits(32)
        while session == 0 or session in self._lanes:
            session = secrets.randbits(32)
        key = secrets.token_bytes(KEY_BYTES)
        channel = Channel(key, session, asyncio.get_running_loop().time(), is_supernode=True)
        lane = self._lanes[session] = Lane(channel, self._transmit, deliver, alive, wake, self._meter)
        return Membership(self, session, key, lane)

    def leave(self, session: int) -> None:
        """The session is over. Idempotent."""
        lane = self._lanes.pop(session, None)
        if lane is not None:
            lane.close()

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(READ_MAX):
            try:
                datagram, address = self._socket.recvfrom(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # Somebody's refusal of what we sent; the session finds out by itself.
                continue
            lane = self._lanes.get(datagrams.session_of(datagram))
            if lane is not None:
                lane.heard_datagram(datagram, address)

    def _transmit(self, datagram: bytes, address: Address) -> None:
        assert self._socket is not None
        try:
            self._socket.sendto(datagram, address)
        except OSError:
            # Lost, as on the way: it goes again.
            return


class Membership:
    """What Welcome tells the peer, and the lane."""

    def __init__(self, port: DatagramPort, session: int, key: bytes, lane: Lane[Address]) -> None:
        self._port = port
        self.session = session
        self.key = key
        self.lane = lane

    def leave(self) -> None:
        """Idempotent."""
        self._port.leave(self.session)
