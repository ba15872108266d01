"""What a service takes from its machine when it starts: its data folder, its listeners, its descriptors."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING

from proto.config.values import HostPort
from proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


def take_folder(data_dir: Path) -> int:
    """Make the folder and lock it for this process; returns the lock's descriptor. Raises ConfigError."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--data-dir {data_dir}: {error.strerror}; name a folder this user may write") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"--data-dir {data_dir}: in use by another process; give each its own") from None
    return descriptor


def listen(flag: str, address: HostPort, backlog: int) -> socket.socket:
    """A TCP listener; who connects before the service is ready waits. Raises ConfigError naming the flag."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, target = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(target)
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no name of a host"
        raise ConfigError(f"{flag} {address}: {reason}; name a free address of this machine") from None
    return listener


def bound_address(listener: socket.socket) -> str:
    """HOST:PORT, with the port that the system chose."""
    return str(HostPort(*listener.getsockname()[:2]))


def raise_descriptor_limit(wanted: int) -> None:
    """As far as this user may; a log line where that is less than wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
    if best < wanted:
        logger.info("descriptor_limit wanted=%d allowed=%d: raise it with ulimit -n", wanted, best)


def descriptor_limit() -> int:
    """Of open files, for this process now; 0 for none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def disk_facts(folder: Path) -> dict[str, int | bool | str]:
    """Of a folder's disk, for this user: `free_bytes`, `writable`, `disk_problem` if it does not answer."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return {"free_bytes": 0, "writable": False, "disk_problem": error.strerror or str(error)}
    writable = not found.f_flag & os.ST_RDONLY and os.access(folder, os.W_OK | os.X_OK)
    return {"free_bytes": found.f_bavail * found.f_frsize, "writable": writable, "disk_problem": ""}


def numeric_address(address: HostPort) -> HostPort | None:
    """Blocking: the first numeric address that the host's name stands for; None, and a log line, where it has none."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        logger.error("advertise_unresolved address=%s error=%s: --advertise must name this machine", address, error)
        return None
    return HostPort(str(found[0][4][0]), address.port)
