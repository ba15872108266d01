"""Where the nodes keep what they pull: memory if it fits beside everything else, else the disk. It refuses; it never
tries.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proto.errors import LocalError
from proto.pieces import MIB

_TMPFS: Final = Path("/dev/shm")
# Of a forked peer, beyond what it shares, with its buffers (measured: 20 to 35 MiB).
_NODE_BYTES: Final = 40 * MIB
_LEFT_FREE_BYTES: Final = 1024 * MIB
# Files' metadata, logs, state files.
_STORE_FACTOR: Final = 1.05
_NODE_FILES_BYTES: Final = 1 * MIB


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """A folder for the stores, and whether it is in memory."""

    folder: Path
    in_memory: bool

    @property
    def remark(self) -> str:
        """For the report."""
        return "in memory (tmpfs)" if self.in_memory else "on disk"


def find_disk_space(nodes: int, size_bytes: int, disk: Path, asked: Path | None) -> DiskSpace:
    """DiskSpace for the copies of all nodes and the supernode. Raises LocalError that says what is short."""
    memory = available_memory_bytes()
    stores = stores_bytes(nodes, size_bytes)
    processes = nodes * _NODE_BYTES + _LEFT_FREE_BYTES
    if memory < processes:
        raise LocalError(
            f"{nodes} nodes need {processes // MIB} MiB of memory, {memory // MIB} are available: take fewer"
        )
    in_tmpfs = _free_bytes(_TMPFS) >= stores and memory >= stores + processes
    if asked is None and in_tmpfs:
        return DiskSpace(_TMPFS, in_memory=True)
    folder = asked or disk
    on_disk = _free_bytes(folder)
    if on_disk < stores + _LEFT_FREE_BYTES:
        raise LocalError(
            f"{nodes} copies of {size_bytes // MIB} MiB need {stores // MIB} MiB: {folder} has {on_disk // MIB} free, "
            f"memory {memory // MIB}; take fewer nodes, a smaller --size or another --store-dir"
        )
    return DiskSpace(folder, in_memory=False)


def stores_bytes(nodes: int, size_bytes: int) -> int:
    """Of all copies of one mode; a mode's are removed before the next one's."""
    return int((nodes + 1) * (size_bytes * _STORE_FACTOR + _NODE_FILES_BYTES))


def available_memory_bytes() -> int:
    """What the kernel says could be given to new programs without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LocalError("/proc/meminfo does not say how much memory is available")


def _free_bytes(folder: Path) -> int:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return 0
    return shutil.disk_usage(folder).free
