"""A disk of its own that fails: a small ext4 in a file. Needs root and loop devices."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.processes import ProcessError, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# EXT4_IOC_SHUTDOWN, and EXT4_GOING_FLAGS_NOLOGFLUSH (linux/fs/ext4/ext4.h).
_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = (2).to_bytes(4, "little")


@contextlib.contextmanager
def small_ext4(directory: Path, size_bytes: int) -> Iterator[Path]:
    """Mount one of so many bytes on `directory`, made if it is absent. Skips where this machine mounts none."""
    directory.mkdir(parents=True, exist_ok=True)
    image = directory.with_name(f"{directory.name}.ext4")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    run(["mkfs.ext4", "-q", "-m", "0", image])
    try:
        run(["mount", "-o", "loop,errors=continue", image, directory])
    except ProcessError as error:
        pytest.skip(f"no loop device: {error}")
    try:
        yield directory
    finally:
        # lazily: a program that still has a file open here must not keep the test from cleaning up
        run(["umount", "--lazy", directory], check=False)


def become_read_only(directory: Path) -> None:
    """As ext4 does by itself when it finds its disk in trouble: EROFS for every write, also by who had files open."""
    run(["mount", "-o", "remount,abort", directory])


def fail(directory: Path) -> None:
    """The disk is gone: EIO for every read and write."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
    finally:
        os.close(descriptor)
