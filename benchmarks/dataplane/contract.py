"""What the ways of moving a blob have in common: a job, two roles in two processes, and what each role used.

A way is a module with two functions: `send(job, sending)` serves until its standard input ends, which it is told by
`sending`; `receive(job, address)` returns what it used until the blob is on disk and checked. Neither counts what comes
before both sides are ready, or after the blob is there.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Job:
    """One transfer. Paths are absolute; `target` is a folder that does not exist yet.

    `source_file` is the blob, `source_store` the store that it lies in, complete.
    """

    source_file: str
    source_store: str
    target: str
    digest: str
    size_bytes: int
    piece_size_bytes: int
    # The key of the supernode that signs, 32 bytes in hex.
    supernode_seed: str
    torrent_file: str
    # A folder with what the two show each other by TLS: ca.pem, sender.pem, sender.key, receiver.pem, receiver.key.
    certificates: str
    buffer_bytes: int = 0
    parallel: int = 2


class Way(Protocol):
    """A module that moves a blob."""

    def send(self, job: Job, sending: Sending) -> None: ...

    def receive(self, job: Job, address: str) -> Marks: ...


@dataclass
class Usage:
    """Of one process, from its start mark on: CPU of all threads, user and system, and time."""

    cpu_s: float
    elapsed_s: float


@dataclass
class Marks:
    """Moments in the work of one side; `begin` leaves out starting Python and importing."""

    _zero: Usage = field(default_factory=lambda: _now())
    parts: dict[str, Usage] = field(default_factory=dict)

    def begin(self) -> None:
        """The work starts now."""
        self._zero = _now()

    def reached(self, name: str) -> None:
        """Everything since begin() counts for `name`."""
        now = _now()
        self.parts[name] = Usage(now.cpu_s - self._zero.cpu_s, now.elapsed_s - self._zero.elapsed_s)


def _now() -> Usage:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(used.ru_utime + used.ru_stime, time.monotonic())


class Sending:
    """A sender's own account of itself. `say` tells the parent where it can be reached."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.marks = Marks()
        self._say = say

    def started(self, address: str) -> None:
        """It can be reached, at HOST:PORT."""
        self.marks.begin()
        self._say(address)

    def wait_for_end(self) -> None:
        """Until the parent closes our standard input."""
        sys.stdin.buffer.read()
        self.ended()

    def ended(self) -> None:
        """Our standard input has ended."""
        self.marks.reached("all")
