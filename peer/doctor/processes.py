"""Which process listens at a port, and since when one runs: as /proc tells, for this user's eyes. Linux alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"


def listener(port: int) -> str:
    """`NAME (pid N)` of who listens at this TCP port; empty where that is not to be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if sockets:
        for process in _processes():
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        if os.readlink(descriptor) in sockets:
                            return f"{_name(process)} (pid {process.name})"
    return ""


def started_unix_s(name: str) -> float | None:
    """When the process of this name that runs the longest was started; None where there is none."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for process in _processes():
        with contextlib.suppress(OSError, IndexError, ValueError):
            if _name(process) == name:
                # Behind the name, which may have spaces and brackets: field 22 counts from the start.
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                found.append(int(fields[19]) / ticks)
    return min(found) + _boot_unix_s() if found else None


def _boot_unix_s() -> float:
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, IndexError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _processes() -> Iterator[Path]:
    return (entry for entry in _PROC.iterdir() if entry.name.isdigit())


def _name(process: Path) -> str:
    return (process / "comm").read_text().strip()
