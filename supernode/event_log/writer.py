"""Records the scheduler's events and commands in a file, from a thread. It decides nothing and changes nothing.

The loop puts entries in a queue; the thread packs and appends them a few times a second, so a `kill -9` costs what the
last moment brought. A full disk, the size limit or a disk that hangs ends the recording, never the service.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from proto.errors import ConfigError
from supernode.event_log.format import FRAME_BYTES_MAX, MAGIC, Encoder, Handled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proto.machine import Machine
    from supernode.event_log.format import Entry, Header
    from supernode.scheduler.contract import Command, Event

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 0.25
# A record at most; a larger queue becomes several.
ENTRIES_PER_RECORD: Final = 1024
# Entries that wait for a slow disk: some seconds of a very busy scheduler, below 100 MB.
WAITING_MAX: Final = 100_000
# Kept free below the size limit for the frame that says why the log ends.
_END_BYTES: Final = 64


class EventLogWriter:
    """One file. add() and turn_ended() on the loop; close() anywhere, blocking."""

    def __init__(
        self,
        path: Path,
        header: Header,
        *,
        size_limit_bytes: int,
        write: Callable[[int, bytes], int] = os.write,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        """Begin the file, mode 0600. One that an earlier start wrote is kept as PATH.1. Raises ConfigError."""
        self._path = path
        self._limit_bytes = size_limit_bytes
        self._write = write
        self._interval_s = flush_interval_s
        self._encoder = Encoder()
        self._waiting: deque[Entry] = deque()
        self._written_bytes = 0
        self._stopping = threading.Lock()
        self._stopped = False
        self._closing = threading.Event()
        self._descriptor = _begin(path)
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._append(self._encoder.begin(header))
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._stopped

    def add(self, now: float, event: Event, commands: list[Command] | None) -> None:
        """One handle(); `commands` None: it raised."""
        if self._stopped:
            return
        self._waiting.append(Handled(now, event, commands))
        if len(self._waiting) > WAITING_MAX:
            self._stop(f"{WAITING_MAX} events wait for the disk")

    def turn_ended(self) -> None:
        """next_wakeup() was asked."""
        if not self._stopped:
            self._waiting.append(None)

    def close(self) -> None:
        """Write what waits, say that the log ends here, close the file."""
        self._closing.set()
        self._thread.join()
        if not self._stopped:
            self._append(self._encoder.end("the supernode stopped"))
            self._stopped = True
        os.close(self._descriptor)

    def _run(self) -> None:
        closing = False
        while not closing and not self._stopped:
            closing = self._closing.wait(self._interval_s)
            self._flush()
        self._waiting.clear()

    def _flush(self) -> None:
        while self._waiting and not self._stopped:
            count = min(len(self._waiting), ENTRIES_PER_RECORD)
            try:
                frame = self._encoder.record([self._waiting.popleft() for _ in range(count)])
            except (TypeError, ValueError, OverflowError) as error:
                self._stop(f"an event cannot be kept: {error}")
                return
            if self._written_bytes + len(frame) + _END_BYTES > self._limit_bytes or len(frame) > FRAME_BYTES_MAX:
                self._append(self._encoder.end("size limit"))
                self._stop(f"it has reached its size limit of {self._limit_bytes} bytes (event_log_size)")
                return
            self._append(frame)

    def _append(self, frame: bytes) -> None:
        left = memoryview(frame)
        try:
            while left:
                left = left[self._write(self._descriptor, bytes(left)) :]
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)
            return
        self._written_bytes += len(frame)

    def _stop(self, why: str) -> None:
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
        logger.warning("event_log_stopped file=%s: %s; the service goes on", self._path, why)


class RecordedScheduler:
    """A machine whose every event, and what it answered, goes to the log too. Implements Machine[Event, Command]."""

    def __init__(self, machine: Machine[Event, Command], log: EventLogWriter) -> None:
        self._machine = machine
        self._log = log

    def handle(self, event: Event, now: float) -> list[Command]:
        """See Machine. An event that breaks the machine is recorded too: it is the one that will be looked for."""
        commands: list[Command] | None = None
        try:
            commands = self._machine.handle(event, now)
        finally:
            self._log.add(now, event, commands)
        return commands

    def next_wakeup(self) -> float | None:
        self._log.turn_ended()
        return self._machine.next_wakeup()


def _begin(path: Path) -> int:
    """The descriptor of a new file in place of an older log. Raises ConfigError."""
    try:
        if path.exists():
            older = path.with_name(path.name + ".1")
            for file in (path, older):
                _check_ours(file)
            path.replace(older)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--event-log {path}: {error.strerror}; name a file this user may write") from None
    os.fchmod(descriptor, 0o600)
    return descriptor


def _check_ours(path: Path) -> None:
    """A file that is not an event log is not replaced. Raises ConfigError, OSError."""
    if not path.exists():
        return
    regular = stat.S_ISREG(path.lstat().st_mode)
    if regular:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if not start or start == MAGIC:
            return
    raise ConfigError(f"--event-log {path}: exists and is not an event log; name another file")
