"""Commands for one thread, and a descriptor that wakes it for them and for whatever else writes to it."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Mailbox:
    """put() from any thread, the rest from the one that owns it. `wake_descriptor`: a byte written to it wakes, too."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._wakes, self.wake_descriptor = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def put(self, command: Callable[[], object]) -> None:
        """Have it run by the owner; nothing after close()."""
        self._commands.put(command)
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it is awake
            if self.wake_descriptor >= 0:
                os.write(self.wake_descriptor, b"\0")

    def wait(self, timeout_s: float) -> None:
        """Until something wakes."""
        select.select([self._wakes], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wakes, 4096)) == 4096:
                pass

    def take(self) -> list[Callable[[], object]]:
        """The commands that wait, in order."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._commands.get_nowait())
        return taken

    def close(self) -> None:
        """When nobody else writes to the descriptor any more."""
        with self._lock:
            os.close(self._wakes)
            os.close(self.wake_descriptor)
            self.wake_descriptor = -1
