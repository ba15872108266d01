"""Keeps two or more programs running: starts them in order, restarts what dies, ends them together.

It knows no supernode and no peer; a program is a command line and the addresses of its ready line. Runs in the main
thread, because the tie between parent and child is to the thread that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Mapping, Sequence

# SIGTERM must end all within 5 s; what has not ended by then is killed.
END_TIMEOUT_S: Final = 4.5
# A full store is looked through first, and the machine may be busy; nobody waits for one that says why it ends.
READY_TIMEOUT_S: Final = 120.0
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
# A program that ran this long was well: its next restart is quick again.
_WELL_AFTER_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1


@dataclass
class Program:
    """One program. `arguments` returns what follows `python -m`, from the addresses that programs named so far."""

    name: str
    arguments: Callable[[Mapping[str, str]], Sequence[str]]
    # Once it was ready for the first time.
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Supervisor:
    """Owns the programs' processes. `say` prints one line for the operator."""

    programs: Sequence[Program]
    say: Callable[[str], None]
    addresses: dict[str, str] = field(default_factory=dict)

    def run(self, when_ready: Callable[[Mapping[str, str]], None]) -> None:
        """Start the programs one after the other, then supervise them until SIGTERM or SIGINT.

        `when_ready` is called once, with every address the programs named. Raises CommandError when a program
        does not come up the first time.
        """
        asyncio.run(self._run(when_ready))

    async def _run(self, when_ready: Callable[[Mapping[str, str]], None]) -> None:
        this = asyncio.current_task()
        assert this is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, this.cancel)
        try:
            async with asyncio.TaskGroup() as tasks:
                for program in self.programs:
                    tasks.create_task(self._keep(program))
                    await _until_ready(program)
                when_ready(self.addresses)
        except asyncio.CancelledError:
            return  # told to end, and all have ended
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _keep(self, program: Program) -> None:
        """Run it, again and again, until this task is cancelled. Raises CommandError if it never was ready."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            started_s = time.monotonic()
            status = await self._run_once(program)
            if not program.ready.is_set():
                raise CommandError(
                    f"{program.name} ended with status {status} before it was ready; its words are above"
                )
            if time.monotonic() - started_s > _WELL_AFTER_S:
                backoff_s = _BACKOFF_FIRST_S
            self.say(f"{program.name} ended with status {status}; starting it again in {backoff_s:g} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)

    async def _run_once(self, program: Program) -> int:
        """From its start to its end; returns its status."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *program.arguments(self.addresses)),
            stdin=DEVNULL,
            stdout=PIPE,
            preexec_fn=functools.partial(_end_with_parent, ctypes.CDLL(None, use_errno=True), os.getpid()),
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self._line(program, line.decode(errors="replace").rstrip("\n"))
            return await process.wait()
        finally:
            await self._end(program, process)

    def _line(self, program: Program, line: str) -> None:
        words = line.split()
        if words[:1] != ["ready"]:
            self.say(line)
            return
        for word in words[1:]:
            key, separator, address = word.partition("=")
            if separator:
                self.addresses[f"{program.name}.{key}"] = address
        program.ready.set()

    async def _end(self, program: Program, process: Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # ended just now
            process.terminate()
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                self.say(f"{program.name} did not end in time and is killed")
                process.kill()
        await process.wait()


async def _until_ready(program: Program) -> None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await program.ready.wait()
    except TimeoutError:
        raise CommandError(f"{program.name} was not ready within {READY_TIMEOUT_S:.0f} s") from None


def _end_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    """In a child, before its program: Linux sends it SIGTERM when its parent dies, however that dies."""
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
