"""The goodput of one plain TCP flow over a shaped link, with which bounds are computed. Nothing of Layercast in it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.namespaces import inside
from benchmarks.fanout.site import ETHERNET_BYTES, SEGMENT_HEADER_BYTES
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fanout.site import Place

_DURATION_S: Final = 5.0
# By then the losses that end slow start are repaired: what waited behind them would count as come at once.
_SETTLED_S: Final = 1.5
_SEND_BYTES: Final = 64 << 10
# More than ever waits: each reading takes all that has come, so that its time belongs to the sum.
_READ_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 20.0
_PORT: Final = 65010


@dataclass(frozen=True, slots=True)
class Goodput:
    """Measured, and as frames allow: payload over all bytes of a full frame. Both are parts of the nominal rate."""

    measured: float
    expected: float

    @property
    def doubtful(self) -> bool:
        """Whether the machine or its shaping did not do what the frames allow (3 %)."""
        return abs(self.measured / self.expected - 1.0) > 0.03


def goodput(sender: Place, receiver: Place, rate_bytes_s: float, frame_bytes: int) -> Goodput:
    """Send for some seconds from one place to the other. Raises LocalError if nothing arrives."""
    listener = inside(receiver.netns, lambda: socket.create_server((receiver.host, _PORT)))
    sending = threading.Thread(target=_send, args=(sender, receiver.host), name="calibration")
    try:
        with listener:
            listener.settimeout(_TIMEOUT_S)
            sending.start()
            connection, _ = listener.accept()
        with connection:
            arrivals = _receive(connection)
        measured_bytes_s = steady_rate(arrivals, _SETTLED_S)
    except OSError as error:
        raise LocalError(f"no TCP between two nodes' namespaces: {error}") from None
    finally:
        if sending.ident is not None:
            sending.join()
    return Goodput(measured_bytes_s / rate_bytes_s, payload_part(frame_bytes))


def payload_part(frame_bytes: int) -> float:
    """Of all bytes of a full frame."""
    return (frame_bytes + ETHERNET_BYTES - SEGMENT_HEADER_BYTES) / (frame_bytes + ETHERNET_BYTES)


def steady_rate(arrivals: Sequence[tuple[float, int]], settled_s: float) -> float:
    """Bytes/s of what came later than `settled_s` after the first: pairs of (time, bytes), ascending.

    The first one counted only begins the clock. Raises LocalError if there are not two.
    """
    late = [one for one in arrivals if one[0] >= arrivals[0][0] + settled_s]
    if len(late) < 2:
        raise LocalError("the calibration's flow ended at once: is the machine overloaded?")
    return sum(size for _, size in late[1:]) / (late[-1][0] - late[0][0])


def _send(place: Place, host: str) -> None:
    def work() -> None:
        block = bytes(_SEND_BYTES)
        until_s = time.monotonic() + _DURATION_S
        # The receiver may close first, with what is still queued here.
        with socket.create_connection((host, _PORT), timeout=_TIMEOUT_S) as connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _SEND_BYTES)
            while time.monotonic() < until_s:
                connection.sendall(block)

    with contextlib.suppress(OSError):  # the receiver says that nothing came
        inside(place.netns, work)


def _receive(connection: socket.socket) -> list[tuple[float, int]]:
    connection.settimeout(_TIMEOUT_S)
    arrivals: list[tuple[float, int]] = []
    began_s = time.monotonic()
    while time.monotonic() < began_s + _DURATION_S:
        data = connection.recv(_READ_BYTES)
        if not data:
            break
        arrivals.append((time.monotonic(), len(data)))
    return arrivals
