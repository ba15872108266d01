"""Threads of this process in network namespaces, and the counters of their interfaces. It makes no namespace.

setns(2) moves the calling thread alone: whatever enters does so in a thread that ends afterwards, so that no other work
ever finds itself in a foreign network. Sockets stay where they were made.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from benchmarks.cluster.lab import NETNS_DIR

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def enter(netns: str) -> None:
    """Move the calling thread into the network namespace of that name, for good. Raises OSError."""
    descriptor = os.open(NETNS_DIR / netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), netns)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Outcome(Generic[T]):
    value: T | None = None
    error: BaseException | None = None


def inside(netns: str | None, work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread inside the namespace; with None, right here. Raises what it raises."""
    if netns is None:
        return work()
    outcome: _Outcome[T] = _Outcome()

    def enter_and_work() -> None:
        try:
            enter(netns)
            outcome.value = work()
        except BaseException as error:
            outcome.error = error

    thread = threading.Thread(target=enter_and_work, name=f"in-{netns}")
    thread.start()
    thread.join()
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value]  # work has returned it, be it None


@dataclass(frozen=True, slots=True)
class DeviceCounters:
    """What one interface received and sent since it was made: bytes of frames, and frames."""

    received_bytes: int
    received_frames: int
    sent_bytes: int
    sent_frames: int


def device_counters() -> dict[str, DeviceCounters]:
    """Of every interface in the calling thread's namespace, by name."""
    # Not /proc/net, which is the main thread's.
    return parse_device_counters(Path("/proc/thread-self/net/dev").read_text())


def parse_device_counters(text: str) -> dict[str, DeviceCounters]:
    """/proc/net/dev as the kernel writes it: two lines of headings, then a name and 16 numbers a line."""
    counters = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = [int(word) for word in numbers.split()]
        counters[name.strip()] = DeviceCounters(fields[0], fields[1], fields[8], fields[9])
    return counters
