"""A small file system that can really be full."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def small_tmpfs(directory: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of `size_bytes` on `directory`, which is made if it is absent. Needs root."""
    directory.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "layercast-test", directory])
    try:
        yield directory
    finally:
        # lazily: a program that still has a file open here must not keep the test from cleaning up
        run(["umount", "--lazy", directory], check=False)


def fill(directory: Path) -> int:
    """Fill the file system that holds `directory` to the last byte; how many bytes it took."""
    written_bytes = 0
    with (directory / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            written_bytes += file.write(bytes(4096))
    return written_bytes
