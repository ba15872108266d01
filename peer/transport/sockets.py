"""What both ends of the piece protocol do with sockets: kernel timeouts and their like. No HTTP here.

The sockets stay truly blocking: a timeout set through Python would make them non-blocking underneath, and
sendfile would come back for each few bytes. So the kernel's own SO_SNDTIMEO is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

from peer.transport.pace import Progress

_TIMEVAL = struct.Struct("ll")
_U64 = struct.Struct("Q")
_INT = struct.Struct("i")
# linux/pkt_sched.h; higher ones need a capability.
_INTERACTIVE = 6
# linux/sockios.h
_SIOCOUTQNSD = 0x894B
_BYTES_ACKED_AT = 120
_RWND_LIMITED_AT = 176
_TCP_INFO_BYTES = _RWND_LIMITED_AT + _U64.size


def set_send_timeout(sock: socket.socket, seconds: float) -> None:
    """Sends (and connects) that make no progress for so long end with BlockingIOError."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))


def set_wake_threshold(sock: socket.socket, size_bytes: int) -> None:
    """A thread that waits for bytes is woken once so many are there, or the connection ends or its window is full."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)


def set_unsent_limit(sock: socket.socket, size_bytes: int) -> None:
    """A sender waits while so many bytes have not left: what it counts as sent is on its way but for these."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size_bytes)


def set_urgent(sock: socket.socket) -> None:
    """What it sends is small and waited for: it goes before whatever else waits at this machine's interface.

    The priority ends there: no packet tells it. Queues of Linux that know no priorities share among connections. Where
    a kernel refuses it (a sandbox's own), all is sent in turn.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _INTERACTIVE)


def unsent_size(sock: socket.socket) -> int:
    """How many bytes have not left, of those that were sent. Raises OSError."""
    (size_bytes,) = _INT.unpack(fcntl.ioctl(sock, _SIOCOUTQNSD, bytes(_INT.size)))
    return int(size_bytes)


def progress(sock: socket.socket) -> Progress | None:
    """How the other end takes what it is sent (struct tcp_info of linux/tcp.h); None where the kernel does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    (acknowledged_bytes,) = _U64.unpack_from(info, _BYTES_ACKED_AT)
    (receiver_full_us,) = _U64.unpack_from(info, _RWND_LIMITED_AT)
    return Progress(acknowledged_bytes, receiver_full_us / 1e6)


def shut_down(sock: socket.socket) -> None:
    """Wake whoever is blocked in this socket, from another thread; harmless when it is closed already.

    The plain socket's method also for TLS: SSLSocket.shutdown drops the TLS state under the reader's feet.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _timeval(seconds: float) -> bytes:
    # Zero would mean for ever.
    microseconds = max(1, int(seconds * 1_000_000))
    return _TIMEVAL.pack(microseconds // 1_000_000, microseconds % 1_000_000)
