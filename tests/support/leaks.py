"""Finds what a test leaves behind: threads, children, open files and sockets, tasks.

Each check gives lines to print, none when all is clean. What the interpreter and pytest own is left out by name,
not by guess.
"""

from __future__ import annotations

import asyncio
import asyncio.runners
import contextlib
import gc
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long what a test stopped may take to be gone: a thread that ends, a child to be reaped, a socket to close.
GRACE_S: Final = 60.0
_POLL_S: Final = 0.02

# Threads and children that live as long as the interpreter once something has needed them.
_LASTING_THREADS: Final = ("pytest", "asyncio_0", "pymonitor", "grpc")
_LASTING_CHILDREN: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Files that are opened once and kept: random numbers, terminals, epoll and eventfd of libraries such as grpc.
_LASTING_FILES: Final = ("/dev/", "/proc/", "/sys/")

_cancel_all_tasks: Callable[[asyncio.AbstractEventLoop], None] = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]  # asyncio offers no public hook here


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What exists at one moment."""

    threads: frozenset[int]
    children: frozenset[int]
    files: frozenset[tuple[int, str]]

    @classmethod
    def take(cls) -> Snapshot:
        """Look now."""
        return cls(
            frozenset(thread.ident or 0 for thread in threading.enumerate()),
            frozenset(_children()),
            frozenset(_open_files()),
        )

    def left_behind(self) -> list[str]:
        """What has come since and is still here: waits for it up to GRACE_S, then names it."""
        deadline_s = time.monotonic() + GRACE_S
        leaks = self._new()
        collected = False
        while leaks and time.monotonic() < deadline_s:
            if not collected:
                gc.collect()  # a socket in a reference cycle is closed, with a ResourceWarning, when collected
                collected = True
            time.sleep(_POLL_S)
            leaks = self._new()
        return leaks

    def _new(self) -> list[str]:
        threads = [
            f"thread {thread.name!r}"
            for thread in threading.enumerate()
            if thread.ident not in self.threads and not thread.name.startswith(_LASTING_THREADS)
        ]
        children = [
            f"child {pid}: {command}"
            for pid, command in _children().items()
            if pid not in self.children and not any(name in command for name in _LASTING_CHILDREN)
        ]
        files = [
            f"open file {number}: {target}"
            for number, target in sorted(_open_files() - self.files)
            if not target.startswith(_LASTING_FILES)
        ]
        return threads + children + files


def _children() -> dict[int, str]:
    """Process id and command line of each child of this process, zombies included."""
    children: dict[int, str] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has just ended
            for pid in (task / "children").read_text().split():
                children[int(pid)] = _command(int(pid))
    return children


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "gone"
    return words.strip() or "zombie: nobody waited for it"


def _open_files() -> set[tuple[int, str]]:
    """Number and target of each open file descriptor."""
    files: set[tuple[int, str]] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            files.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return files


@dataclass(slots=True)
class TaskWatch:
    """Notes the asyncio tasks that still run when their loop is closed, which asyncio cancels in silence."""

    left: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every asyncio.run and every Runner, that of pytest-asyncio included. An inner watch hides the outer."""
        outer = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]  # as above

        def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
            self.left += [f"task {task!r}" for task in asyncio.all_tasks(loop)]
            _cancel_all_tasks(loop)

        asyncio.runners._cancel_all_tasks = note_and_cancel  # type: ignore[attr-defined]  # as above
        try:
            yield
        finally:
            asyncio.runners._cancel_all_tasks = outer  # type: ignore[attr-defined]  # as above
