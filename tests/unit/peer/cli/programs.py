"""Stand-ins for the supernode and the peer, supervised: `python -m tests.unit.peer.cli.programs ROLE ...`.

As `supervised DIRECTORY BEHAVIOUR`, runs two of them under a Supervisor. Each stand-in writes its pid
into the directory.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peer.cli import supervisor
from peer.cli.contract import CommandError
from peer.cli.supervisor import Program, Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODULE = "tests.unit.peer.cli.programs"


def stand_in(name: str, directory: Path, behaviour: str, told: str) -> None:
    """Say that it is ready and wait: `dies` ends by itself, `deaf` hears no SIGTERM, `broken` does not start."""
    if behaviour == "broken":
        sys.exit(7)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    runs = directory / f"{name}.pids"
    before = runs.read_text() if runs.exists() else ""
    runs.write_text(f"{before}{os.getpid()} {told}\n")
    print(f"ready {name} api=127.0.0.1:{1000 + len(before.splitlines())}", flush=True)
    if behaviour == "dies" and len(before.splitlines()) < 2:
        sys.exit(3)
    while True:
        time.sleep(60)


def supervised(directory: Path, behaviour: str) -> int:
    """Mind two stand-ins; the second behaves as told and hears the first one's address."""

    def program(name: str, how: str) -> Program:
        def arguments(addresses: Mapping[str, str]) -> Sequence[str]:
            return [MODULE, "stand-in", name, str(directory), how, addresses.get("first.api", "-")]

        return Program(name, arguments)

    programs = [program("first", "well"), program("second", behaviour)]
    if behaviour == "deaf":
        supervisor.END_TIMEOUT_S = 0.5  # type: ignore[misc]  # nobody waits 4.5 s for a test

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        Supervisor(programs, say).run(lambda addresses: print(f"all ready {addresses['second.api']}", flush=True))
    except CommandError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "supervised":
        sys.exit(supervised(Path(sys.argv[2]), sys.argv[3]))
    stand_in(sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5])
