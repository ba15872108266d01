"""Counts what a program under test has open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.cluster.processes import ManagedProcess


def open_files(process: ManagedProcess) -> int:
    """How many descriptors the running program has: files, sockets, all."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))
