"""Trouble in mid-run: the supernode stands still or is killed, both cores are taken, all links are cut.

Knows when and for how long; what a run comes to under it is for the figures to say.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from benchmarks.flags import choice, duration
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.results import Sample

TroubleKind = Literal["stop", "kill", "cores", "cut"]
_KINDS: Final[tuple[TroubleKind, ...]] = get_args(TroubleKind)
BEFORE_S: Final = 10.0
BACK_PART: Final = 0.9
FORM: Final = (
    "KIND@AFTER+FOR (stop@20s+30s): the supernode stops, kill (without FOR), cores are taken, all links are cut"
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens, so long after the clients began, and for how long."""

    kind: TroubleKind
    after_s: float
    for_s: float

    @classmethod
    def parse(cls, text: str) -> Trouble:
        """Read FORM. Raises ConfigError."""
        kind, _, times = text.partition("@")
        after, _, lasting = times.partition("+")
        known = choice("--trouble", kind, _KINDS)
        if not after or bool(lasting) is (known == "kill"):
            raise ConfigError(f"--trouble {text}: expected {FORM}")
        return cls(known, duration("--trouble", after, 0.0), duration("--trouble", lasting, 0.0) if lasting else 0.0)


@dataclass(slots=True)
class Moments:
    """When a trouble began and was over, monotonic seconds; None: it did not, or was not."""

    began_s: float | None = None
    over_s: float | None = None


def back_at_rate_s(samples: Sequence[Sample], began_s: float, over_s: float) -> float | None:
    """From a trouble's end until nodes received at BACK_PART of the rate before it, over a second; None: never.

    Times as those of the samples. Before it: over the last BEFORE_S.
    """
    before = [one for one in samples if began_s - BEFORE_S <= one.at_s <= began_s]
    if len(before) < 2 or not (wanted_bytes_s := _rate_bytes_s(before[0], before[-1])):
        return None
    after = [one for one in samples if one.at_s >= over_s]
    for first in after:
        second = next((one for one in after if one.at_s >= first.at_s + 1.0), None)
        if second is not None and _rate_bytes_s(first, second) >= BACK_PART * wanted_bytes_s:
            return second.at_s - over_s
    return None


def _rate_bytes_s(first: Sample, second: Sample) -> float:
    came_bytes = sum(second.received_bytes.values()) - sum(first.received_bytes.values())
    return came_bytes / max(second.at_s - first.at_s, 1e-3)


@contextlib.contextmanager
def happening(trouble: Trouble | None, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[Moments]:
    """Does `begin` and `end` at their times, from a thread; what was begun is ended at the latest when the run is."""
    moments = Moments()
    if trouble is None:
        yield moments
        return
    over = threading.Event()

    def run() -> None:
        if over.wait(trouble.after_s):
            return
        moments.began_s = time.monotonic()
        begin()
        if trouble.kind != "kill":
            over.wait(trouble.for_s)
            end()
            moments.over_s = time.monotonic()

    thread = threading.Thread(target=run, name="trouble")
    thread.start()
    try:
        yield moments
    finally:
        over.set()
        thread.join()


class CoreHogs:
    """A busy process for each core."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Take the cores."""
        command = [sys.executable, "-c", "while True: pass"]
        self._processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]

    def end(self) -> None:
        """Give them back."""
        for process in self._processes:
            process.kill()
            process.wait()
