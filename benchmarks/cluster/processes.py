"""Starts real programs, waits until they are ready, keeps what they print, and leaves none behind.

A child gets SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG counts threads, not processes): start
long-lived ones from the test's main thread. Each child leads a process group of its own, which is killed as a
whole in the end.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOG_LINES_MAX: Final = 2000
# For what must come: far beyond what a busy machine takes, since it costs nothing while things go well. At 30 runnable
# programs a core the start of one of ours, 2 s of work, takes a minute.
WAIT_S: Final = 120.0
STOP_TIMEOUT_S: Final = WAIT_S
_IF_STILL_OURS: Final = 'test "$PPID" = "$0" && exec "$@"'
_KEY_VALUE: Final = re.compile(r"(\w+)=(\S+)")


class ProcessError(Exception):
    """A program ended, failed or stayed silent where it should not; the message carries the end of its log."""


class ManagedProcess(Closing):
    """One running program. Its two outputs go, line by line, into a log of at most LOG_LINES_MAX lines.

    `netns` is the name of a network namespace to run it in. A context manager: it stops the program.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        netns: str | None = None,
    ) -> None:
        self.argv = [str(part) for part in argv]
        self.name = name or os.path.basename(self.argv[0])
        self._log: collections.deque[str] = collections.deque(maxlen=LOG_LINES_MAX)
        self._changed = threading.Condition()
        self._process = _popen(self.argv, netns, env, cwd, subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read_output, name=f"log-of-{self.name}")
        self._reader.start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self._log.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """Its process id; valid until `close`."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log(self) -> list[str]:
        """What it printed so far (the last LOG_LINES_MAX lines)."""
        with self._changed:
            return list(self._log)

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log, for an error message."""
        return "\n".join(self.log()[-lines:])

    def wait_for_line(self, pattern: str, timeout_s: float = WAIT_S) -> re.Match[str]:
        """The first line, past or to come, in which the regular expression is found. Raises ProcessError."""
        expression = re.compile(pattern)
        deadline_s = time.monotonic() + timeout_s
        while True:
            # asked before the log is read: what it printed last is there once its outputs are closed
            ended = not self._reader.is_alive()
            with self._changed:
                for line in self._log:
                    if match := expression.search(line):
                        return match
                if ended or time.monotonic() > deadline_s:
                    break
                self._changed.wait(0.1)
        problem = "ended" if ended else f"did not within {timeout_s:g} s"
        raise ProcessError(f"{self.name}: awaited a line like {pattern!r}, it {problem}\n{self.log_tail()}")

    def wait_ready(self, timeout_s: float = WAIT_S) -> dict[str, str]:
        """Wait for the line that begins with `ready `; its key=value pairs."""
        line = self.wait_for_line(r"^ready\b.*", timeout_s)[0]
        return dict(_KEY_VALUE.findall(line))

    def send_signal(self, number: int) -> None:
        """Signal the program, not its children."""
        self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: it holds its sockets and answers nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, then wait for the end; its exit status. Raises ProcessError if it does not end."""
        self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            tail = self.log_tail()
            self.kill()
            raise ProcessError(f"{self.name} did not end within {timeout_s:g} s of SIGTERM\n{tail}") from None

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends; its exit status. Raises subprocess.TimeoutExpired."""
        status = self._process.wait(timeout_s)
        self._end_group()
        return status

    def kill(self) -> None:
        """`kill -9` of it and its process group."""
        self._end_group()
        self._process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)

    def close(self) -> None:
        """Stop it if it runs: SIGTERM, and SIGKILL where that does not help. Never raises for a stubborn one."""
        if self.running:
            self.send_signal(signal.SIGCONT)
            self.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def memory_peak_bytes(self) -> int:
        """The most memory it ever held resident."""
        return memory_peak_bytes(self.pid)

    def cpu_s(self) -> float:
        """CPU seconds that it used so far, its finished children included."""
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process used so far, its finished children included; 0.0 if it is no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory_peak_bytes(pid: int) -> int:
    """VmHWM: the most memory that a process ever held resident, shared pages included; 0 if it is no more."""
    return _kib(pid, "status", "VmHWM")


def memory_share_bytes(pid: int) -> int:
    """Proportional set size: a page that several processes share counts for its part; 0 if it is no more."""
    return _kib(pid, "smaps_rollup", "Pss")


def _kib(pid: int, file: str, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def command_line(argv: Sequence[str], *, netns: str | None = None) -> list[str]:
    """`argv` such that it dies with the thread that starts it, in the network namespace `netns` if given.

    The shell looks whether this process was still there when the signal was set, for otherwise none would ever come.
    nsenter, not `ip netns exec`, which mounts another /sys and so hides the cgroups that dockerd needs.
    """
    tied = [program("setpriv"), "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_STILL_OURS, str(os.getpid())]
    entered = [program("nsenter"), f"--net=/run/netns/{netns}", "--"] if netns else []
    return [*tied, *entered, *argv]


def run(
    argv: Sequence[str | Path],
    *,
    netns: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 2 * WAIT_S,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, both outputs captured as text.

    Raises ProcessError for an exit status other than 0 (unless `check` is off) and when time is up; either way
    the process group is gone.
    """
    words = [str(part) for part in argv]
    with _popen(words, netns, env, cwd, subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise ProcessError(f"{shlex.join(words)}: not done within {timeout_s:g} s\n{out}{err}") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if check and process.returncode != 0:
        raise ProcessError(f"{shlex.join(words)}: exit status {process.returncode}\n{out}{err}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _popen(
    argv: Sequence[str], netns: str | None, env: Mapping[str, str] | None, cwd: Path | None, stderr: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_line(argv, netns=netns),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
        text=True,
        errors="replace",
    )


def wait_until(
    condition: Callable[[], bool],
    what: str = "what was waited for",
    timeout_s: float = WAIT_S,
    every_s: float = 0.05,
) -> None:
    """Poll until `condition` holds. Raises ProcessError, which says `what` did not come about."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise ProcessError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
