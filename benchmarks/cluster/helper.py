"""A process of ours that is steered by JSON lines, one a message each way. It dies with the thread that starts it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.processes import command_line
from benchmarks.cluster.programs import clean_environment
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence

Message = dict[str, object]

_STOP_S: Final = 12.0


class Helper(Closing):
    """Runs `python -m MODULE WORDS`, in a network namespace if asked. A context manager, which ends it.

    Its error output goes to `log`, or where ours goes.
    """

    def __init__(self, module: str, words: Sequence[str], log: Path | None = None, *, netns: str | None = None) -> None:
        self._name = module.rpartition(".")[2]
        self._log = log
        with contextlib.nullcontext() if log is None else log.open("wb") as errors:
            self._process = subprocess.Popen(
                command_line([sys.executable, "-m", module, *words], netns=netns),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment(HOME="/nonexistent" if log is None else str(log.parent)),
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"from-{self._name}")
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, *messages: Message) -> None:
        """Write them. Raises LocalError if it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None when none came in time. Raises LocalError if it has ended."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            self._messages.put(None)
            raise self._ended()
        return message

    def end_input(self) -> None:
        """By which it is told to come to its end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """End its input and wait; kill it, and all that it started, if that does not help."""
        process = self._process
        self.end_input()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def _ended(self) -> LocalError:
        lines = [] if self._log is None else self._log.read_text(errors="replace").strip().splitlines()
        return LocalError(f"the {self._name} process ended: {lines[-1] if lines else 'see what it said above'}")
