"""The operator's commands for a store, on the node of a running service."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.services import script

if TYPE_CHECKING:
    from benchmarks.cluster.services import Service


def layercast(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """The operator's command, on the node."""
    argv = [str(script("layercast")), *words, "--data-dir", str(service.data_dir)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=WAIT_S)


def evicts(service: Service, digest: str) -> bool:
    """Whether the blob was there, used by nobody, and is gone now."""
    done = layercast(service, "evict", digest)
    return done.returncode == 0 and done.stdout.startswith(f"evicted {digest}, ")
