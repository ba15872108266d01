"""Trouble in mid-run: the supernode stands still or is killed, both cores are taken, all links are cut.

Knows when and for how long; what a run comes to under it is for the figures to say.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from benchmarks.flags import choice, duration
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TroubleKind = Literal["stop", "kill", "cores", "cut"]
_KINDS: Final[tuple[TroubleKind, ...]] = get_args(TroubleKind)
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


@contextlib.contextmanager
def happening(trouble: Trouble | None, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Does `begin` and `end` at their times, from a thread; what was begun is ended at the latest when the run is."""
    if trouble is None:
        yield
        return
    over = threading.Event()

    def run() -> None:
        if over.wait(trouble.after_s):
            return
        begin()
        if trouble.kind != "kill":
            over.wait(trouble.for_s)
            end()

    thread = threading.Thread(target=run, name="trouble")
    thread.start()
    try:
        yield
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
