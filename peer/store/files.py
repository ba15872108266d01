"""Small file operations of the store: write whole, read fully, make durable; OS errors become the operator's line."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from proto.errors import LocalError, StoreFull

if TYPE_CHECKING:
    from pathlib import Path

DIR_MODE: Final = 0o700
FILE_MODE: Final = 0o600
# Measured with benchmarks/dataplane without SHA instructions: in CPU per GiB 10 % less than 256 KiB with one
# transfer at a time, and no more with two.
CHUNK_BYTES: Final = 1024 * 1024

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def local_error(error: OSError, what: str) -> LocalError:
    """StoreFull where the disk has no room, else LocalError; one line either way."""
    if error.errno in NO_ROOM:
        return StoreFull(f"{what}: no room left on the disk of the store; free some or lower its size limit")
    return LocalError(f"{what}: {error.strerror or error}; look after the disk of the store")


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite until everything is written. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def read_into(descriptor: int, view: memoryview, offset: int) -> bool:
    """Fill the view from `offset`; False when the file ends before."""
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            return False
        view = view[count:]
        offset += count
    return True


def create(path: Path) -> int:
    """A fresh, empty file open for reading and writing."""
    return open_read_write(path, os.O_CREAT | os.O_TRUNC)


def open_read_write(path: Path, flags: int = 0) -> int:
    """For reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, FILE_MODE)


def open_to_use(path: Path, flags: int = 0) -> int:
    """The same, but for reading alone where the disk is read-only: what is there can be sent all the same."""
    try:
        return open_read_write(path, flags)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def replace(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a crash of the process leaves the old content or the new one."""
    beside = path.with_name(path.name + ".new")
    descriptor = create(beside)
    try:
        write_all(descriptor, content, 0)
    finally:
        os.close(descriptor)
    beside.replace(path)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
