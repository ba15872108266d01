"""Starting the two sides of a transfer, and adding up what they used."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from benchmarks.dataplane.contract import Usage
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.dataplane.contract import Job


@dataclass(frozen=True)
class Measured:
    """One transfer. The receiver's parts are each counted from its beginning; "all" is the whole."""

    sender: Usage
    receiver: dict[str, Usage]

    def cpu_s(self, part: str) -> float:
        """Of both processes."""
        return self.sender.cpu_s + self.receiver[part].cpu_s

    def elapsed_s(self, part: str) -> float:
        """At the receiver."""
        return self.receiver[part].elapsed_s


def transfer(way: str, job: Job) -> Measured:
    """Move the blob once. Raises LocalError; no process and no target is left behind."""
    try:
        with _worker(way, "send", job) as sender:
            address = _line(sender, way)
            assert isinstance(address, str)
            with _worker(way, "receive", job, address) as receiver:
                parts = _line(receiver, way)
            assert isinstance(parts, dict)
            _stdin(sender).close()
            used = _line(sender, way)
            assert isinstance(used, dict)
    finally:
        shutil.rmtree(job.target, ignore_errors=True)
    return Measured(Usage(**used["all"]), {name: Usage(**part) for name, part in parts.items()})


@contextlib.contextmanager
def _worker(way: str, role: str, job: Job, *rest: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.dataplane.worker", way, role, job.to_json(), *rest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
            # It has said all it had to say: its own end is not measured.
            process.kill()
        except BaseException:
            process.kill()
            raise


def _line(process: subprocess.Popen[bytes], way: str) -> object:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LocalError(f"a process of {way} failed: see what it said above")
    found: object = json.loads(line)
    return found


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
