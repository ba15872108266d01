"""The ways in which a counting proxy can misbehave like a bad origin, as plain data.

A `Fault` says which requests it meets and what becomes of them; the proxy applies it. No sockets here.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.http_messages import Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.ledger import Exchange

_SLICE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the answers of matching requests. Offsets and lengths are bytes of the body sent.

    path_contains, method: which requests; empty means any. `whole`: none that asks for a range.
    times: it meets this many requests and is then gone; None: until the faults are cleared.
    status: answer with it and `body`, without asking the origin. `headers` are added to any answer
        (`Retry-After`, ...), in place of the origin's of that name; one of value "" removes it. With a status,
        `{target}` in a value becomes the path and query asked for (a Location, say).
    first_byte_delay_s: wait before the first byte of the body, the head having been sent.
    head_delay_s: wait before the head.
    stall_after_bytes: send that much, then nothing until the faults are cleared or the proxy is closed.
    cut_after_bytes: send that much, then close the connection; with `reset`, by a TCP reset.
    length_delta_bytes: announce a Content-Length that is wrong by it; the body stays as it is, then the
        connection is closed.
    corrupt_at: flip the bits of the byte at that offset of the blob, in every answer that covers it.
    ignore_range: ask the origin without the Range header, so that a 200 comes back.
    chunked: send the body chunked, without a Content-Length.
    """

    path_contains: str = ""
    method: str = ""
    whole: bool = False
    times: int | None = None
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    head_delay_s: float = 0.0
    first_byte_delay_s: float = 0.0
    stall_after_bytes: int | None = None
    cut_after_bytes: int | None = None
    reset: bool = False
    length_delta_bytes: int = 0
    corrupt_at: int | None = None
    ignore_range: bool = False
    chunked: bool = False

    def meets(self, method: str, path: str, *, ranged: bool = False) -> bool:
        """Whether a request is one of those this fault is for."""
        return self.path_contains in path and self.method in ("", method) and not (self.whole and ranged)


NO_FAULT: Final = Fault()


@dataclass(slots=True)
class FaultTable:
    """The faults in force, first match wins. Safe to use from several threads.

    `cleared` is set for every stalled exchange when the faults are cleared, so that it goes on.
    """

    _faults: list[tuple[Fault, int | None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cleared: threading.Event = field(default_factory=threading.Event)

    def add(self, fault: Fault) -> None:
        """Put `fault` in force, after those that are."""
        with self._lock:
            self._faults.append((fault, fault.times))

    def clear(self) -> None:
        """Drop all faults and let stalled exchanges go on."""
        with self._lock:
            self._faults.clear()
            self._cleared.set()
            self._cleared = threading.Event()

    def take(self, method: str, path: str, *, ranged: bool = False) -> Fault:
        """The fault for this request, NO_FAULT if none; one with `times` is used up by it."""
        with self._lock:
            for index, (fault, left) in enumerate(self._faults):
                if not fault.meets(method, path, ranged=ranged):
                    continue
                if left is not None:
                    if left <= 1:
                        del self._faults[index]
                    else:
                        self._faults[index] = (fault, left - 1)
                return fault
        return NO_FAULT

    def wait_until_cleared(self) -> threading.Event:
        """The event that the next `clear` sets."""
        with self._lock:
            return self._cleared


class RateLimit:
    """A byte rate shared by all connections of a proxy; None is without limit.

    Each sender takes small turns (20 ms of the rate), so concurrent answers share it about equally.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    def set(self, bytes_per_s: float | None) -> None:
        """Change the rate, for bytes not yet sent."""
        with self._lock:
            self._bytes_per_s = bytes_per_s
            self._free_at_s = 0.0

    def turn_bytes(self, wanted_bytes: int) -> int:
        """How many of `wanted_bytes` to send in one turn."""
        with self._lock:
            if self._bytes_per_s is None:
                return wanted_bytes
            return max(1, min(wanted_bytes, int(self._bytes_per_s * _SLICE_S)))

    def wait(self, size_bytes: int) -> None:
        """Block until `size_bytes` may be sent."""
        with self._lock:
            if self._bytes_per_s is None:
                return
            now = time.monotonic()
            begin_s = max(now, self._free_at_s)
            self._free_at_s = begin_s + size_bytes / self._bytes_per_s
        time.sleep(begin_s - now)


def made_answer(exchange: Exchange, fault: Fault) -> tuple[Head, Iterator[bytes]]:
    """The answer of a fault that overrides the origin's."""
    exchange.status = fault.status
    body = fault.body.encode()
    head = Head(f"HTTP/1.1 {fault.status} Fault", [("Content-Length", str(len(body)))])
    for name, value in fault.headers:
        target = exchange.path + (f"?{exchange.query}" if exchange.query else "")
        head.replace(name, value.replace("{target}", target))
    return head, iter(() if exchange.method == "HEAD" or not body else (body,))


def alter_head(answer: Head, fault: Fault) -> bool:
    """Make the answer's head what the fault wants; whether its body goes out chunked."""
    if not fault.status:
        for name, value in fault.headers:
            answer.remove(name)
            if value:
                answer.headers.append((name, value))
    length = answer.get("Content-Length")
    if fault.length_delta_bytes and length is not None:
        answer.replace("Content-Length", str(int(length) + fault.length_delta_bytes))
    if fault.chunked and length is not None:
        answer.remove("Content-Length")
        answer.headers.append(("Transfer-Encoding", "chunked"))
    return answer.get("Transfer-Encoding") is not None


def corrupted(part: bytes, exchange: Exchange, fault: Fault) -> bytes:
    """`part`, the next of the body, with the byte flipped that the fault names, if it lies within."""
    if fault.corrupt_at is None:
        return part
    index = fault.corrupt_at - exchange.offset - exchange.body_sent_bytes
    if not 0 <= index < len(part):
        return part
    return part[:index] + bytes([part[index] ^ 0xFF]) + part[index + 1 :]
