"""What the ways of moving a blob have in common: a job, two roles in two processes, and what each role used.

A way is a module with two functions: `send(job, started)` serves until its standard input ends, and calls
`started(address)` once it can be reached; `receive(job, address)` returns when the blob is on disk and checked.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
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
    # The keys of the two sides and of the supernode that signs, 32 bytes each in hex.
    supernode_seed: str
    torrent_file: str
    buffer_bytes: int = 0
    parallel: int = 2

    def to_json(self) -> str:
        """For the command line of a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Inverse of to_json."""
        return cls(**json.loads(text))


class Way(Protocol):
    """A module that moves a blob."""

    def send(self, job: Job, started: Callable[[str], None]) -> None: ...

    def receive(self, job: Job, address: str) -> Marks: ...


@dataclass
class Usage:
    """Of one process, from its start mark on: all threads, user and system."""

    user_s: float
    system_s: float
    elapsed_s: float

    @property
    def cpu_s(self) -> float:
        """Both."""
        return self.user_s + self.system_s


@dataclass
class Marks:
    """Moments in a receiver's work; `begin` leaves out starting Python and importing."""

    _zero: tuple[float, float, float] = field(default_factory=lambda: _now())
    parts: dict[str, Usage] = field(default_factory=dict)

    def begin(self) -> None:
        """The work starts now."""
        self._zero = _now()

    def reached(self, name: str) -> None:
        """Everything since begin() counts for `name`."""
        self.parts[name] = self.usage()

    def usage(self) -> Usage:
        """Since begin()."""
        now = _now()
        return Usage(*(after - before for after, before in zip(now, self._zero, strict=True)))


def _now() -> tuple[float, float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime, time.monotonic()


def wait_for_end() -> None:
    """Until the parent closes our standard input."""
    sys.stdin.buffer.read()
