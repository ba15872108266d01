"""Network namespaces: commands in them, threads of this process in them, their counters, their removal.

setns(2) moves the calling thread alone: whatever enters does so in a thread that ends afterwards, so that no other work
ever finds itself in a foreign network. Sockets stay where they were made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from benchmarks.cluster.processes import ProcessError
from benchmarks.cluster.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

NETNS_DIR: Final = Path("/run/netns")
_END_TIMEOUT_S: Final = 5.0
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


def remove_namespaces(names: Sequence[str]) -> None:
    """Kill what runs in them, and delete them; those that are gone already are no error."""
    names = [name for name in names if (NETNS_DIR / name).exists()]
    if not names:
        return
    inodes = {(NETNS_DIR / name).stat().st_ino for name in names}
    deadline_s = time.monotonic() + _END_TIMEOUT_S
    while (pids := _processes_in(inodes)) and time.monotonic() < deadline_s:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    batch("ip", [f"netns del {name}" for name in names], force=True)


def batch(tool: str, commands: Sequence[str], netns: str | None = None, *, force: bool = False) -> None:
    """Several commands of `ip` or `tc` in one process. `force` goes on after errors. Raises ProcessError."""
    scope = ["-n", netns] if netns else []
    go_on = ["-force"] if force else []
    words = [program(tool), *scope, *go_on, "-batch", "-"]
    done = subprocess.run(words, input="\n".join(commands) + "\n", capture_output=True, text=True, check=False)
    if done.returncode != 0 and not force:
        raise ProcessError(f"{tool} -batch in {netns or 'the host'}: {done.stderr.strip()}")


def _processes_in(inodes: set[int]) -> list[int]:
    """Processes whose network namespace is one of these: one pass over /proc, where `ip netns pids` makes one each."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                if (entry / "ns" / "net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return found
