"""Keeps two or more programs running: starts them in order, restarts what dies, ends them together.

It knows no supernode and no peer; a program is a command line and a pattern of its ready line. Runs in the main
thread, because the tie between parent and child is to the thread that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from peer.cli.contract import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# SIGTERM must end all within 5 s; what has not ended by then is killed.
END_TIMEOUT_S: Final = 4.5
READY_TIMEOUT_S: Final = 30.0
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
# A program that ran this long was well: its next restart is quick again.
_WELL_AFTER_S: Final = 60.0
_TICK_S: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


@dataclass
class Program:
    """One program. `arguments` returns what follows `python -m`, from the addresses that programs named so far."""

    name: str
    arguments: Callable[[Mapping[str, str]], Sequence[str]]
    process: subprocess.Popen[bytes] = field(init=False)
    running: bool = False
    started_s: float = 0.0
    restart_s: float = 0.0
    backoff_s: float = _BACKOFF_FIRST_S
    ready: bool = False
    partial: bytes = b""

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout


@dataclass
class Supervisor:
    """Owns the programs' processes. `say` prints one line for the operator."""

    programs: Sequence[Program]
    say: Callable[[str], None]
    addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ending = False

    def run(self, when_ready: Callable[[Mapping[str, str]], None]) -> None:
        """Start the programs one after the other, then supervise them until SIGTERM or SIGINT.

        `when_ready` is called once, with every address the programs named. Raises CommandError when a program
        does not come up the first time.
        """
        with self._signals():
            try:
                for program in self.programs:
                    self._start(program)
                    self._await_ready(program)
                if not self._ending:
                    when_ready(self.addresses)
                while not self._ending:
                    self._read(_TICK_S)
                    self._restart_the_dead()
            finally:
                self._end_all()
                self._selector.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def end(_number: int, _frame: object) -> None:
            self._ending = True

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, program: Program) -> None:
        program.ready, program.partial, program.started_s = False, b"", time.monotonic()
        program.process = subprocess.Popen(
            [sys.executable, "-m", *program.arguments(self.addresses)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=functools.partial(_end_with_parent, ctypes.CDLL(None, use_errno=True), os.getpid()),
        )
        program.running = True
        os.set_blocking(program.output.fileno(), False)
        self._selector.register(program.output, selectors.EVENT_READ, program)

    def _await_ready(self, program: Program) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not program.ready and not self._ending:
            self._read(_TICK_S)
            status = program.process.poll()
            if status is not None and not program.ready:
                raise CommandError(
                    f"{program.name} ended with status {status} before it was ready; its words are above"
                )
            if time.monotonic() > deadline_s:
                raise CommandError(f"{program.name} was not ready within {READY_TIMEOUT_S:.0f} s")

    def _read(self, timeout_s: float) -> None:
        """Take in what the programs print."""
        for key, _ in self._selector.select(timeout_s):
            program: Program = key.data
            content = program.output.read()
            if not content:
                self._selector.unregister(program.output)
                continue
            *lines, program.partial = (program.partial + content).split(b"\n")
            for line in lines:
                self._line(program, line.decode(errors="replace"))

    def _line(self, program: Program, line: str) -> None:
        words = line.split()
        if words[:1] != ["ready"]:
            self.say(line)
            return
        program.ready = True
        for word in words[1:]:
            key, separator, address = word.partition("=")
            if separator:
                self.addresses[f"{program.name}.{key}"] = address

    def _restart_the_dead(self) -> None:
        now_s = time.monotonic()
        for program in self.programs:
            if not program.running:
                if now_s >= program.restart_s:
                    self._start(program)
                continue
            status = program.process.poll()
            if status is None:
                continue
            self._forget(program)
            if now_s - program.started_s > _WELL_AFTER_S:
                program.backoff_s = _BACKOFF_FIRST_S
            self.say(f"{program.name} ended with status {status}; starting it again in {program.backoff_s:g} s")
            program.restart_s = now_s + program.backoff_s
            program.backoff_s = min(_BACKOFF_MAX_S, program.backoff_s * 2)

    def _end_all(self) -> None:
        running = [program for program in self.programs if program.running]
        for program in running:
            program.process.terminate()
        deadline_s = time.monotonic() + END_TIMEOUT_S
        for program in running:
            try:
                program.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{program.name} did not end in time and is killed")
                program.process.kill()
                program.process.wait()
            self._forget(program)

    def _forget(self, program: Program) -> None:
        with contextlib.suppress(KeyError):  # unregistered already when its output ended
            self._selector.unregister(program.output)
        program.output.close()
        program.running = False


def _end_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    """In a child, before its program: Linux sends it SIGTERM when its parent dies, however that dies."""
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
