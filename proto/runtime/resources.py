"""What a service takes from its machine when it starts: its data folder, its listeners, its descriptors."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING, Any, Final

from proto.config.values import HostPort
from proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

# Where passed descriptors begin (SD_LISTEN_FDS_START).
PASSED_FIRST: Final = 3


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
    family, kind, protocol, _, target = _found(flag, address)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _refused(flag, address, error) from None
    return listener


def passed_listener(flag: str, address: HostPort, first: int = PASSED_FIRST) -> socket.socket | None:
    """The listener at this address that a service manager holds for this process; None where none was passed.

    As sd_listen_fds(3) has it: LISTEN_FDS descriptors, `first` and those behind it, for the process LISTEN_PID. The
    manager goes on listening when this process ends, so that clients wait for the next one. Raises ConfigError naming
    the flag where what was passed listens elsewhere.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    passed = [socket.socket(fileno=descriptor) for descriptor in range(first, first + count)]
    # What this process starts is not to have them.
    for listener in passed:
        listener.set_inheritable(False)
    *_, target = _found(flag, address)
    for listener in passed:
        if listener.getsockname()[:2] == target[:2]:
            return listener
    if not passed:
        return None
    where = ", ".join(bound_address(listener) for listener in passed)
    for listener in passed:
        listener.close()
    raise ConfigError(f"{flag} {address}: the socket unit listens at {where}: make the two the same")


def tell_ready() -> None:
    """Tell the service manager that asked for it (NOTIFY_SOCKET, as sd_notify(3) has it). Raises ConfigError."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        raise ConfigError(f"NOTIFY_SOCKET {address}: {error.strerror}; Type=exec in the unit does without it") from None


def _found(flag: str, address: HostPort) -> tuple[int, int, int, str, tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise _refused(flag, address, error) from None


def _refused(flag: str, address: HostPort, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or "this is no name of a host"
    return ConfigError(f"{flag} {address}: {reason}; name a free address of this machine")


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
