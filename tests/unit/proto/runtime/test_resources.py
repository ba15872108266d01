"""What a service takes from its machine, and how it says that it may not."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.config.values import HostPort
from proto.errors import ConfigError
from proto.runtime import resources

if TYPE_CHECKING:
    from pathlib import Path


def test_a_data_folder_is_one_process_s(tmp_path: Path) -> None:
    held = resources.take_folder(tmp_path / "new" / "folder")
    with pytest.raises(ConfigError, match="in use by another process"):
        resources.take_folder(tmp_path / "new" / "folder")
    os.close(held)
    os.close(resources.take_folder(tmp_path / "new" / "folder"))


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--data-dir .*/file/below: .*name a folder"):
        resources.take_folder(tmp_path / "file" / "below")


def test_who_connects_before_the_service_is_ready_waits() -> None:
    with (
        resources.listen("--listen", HostPort("127.0.0.1", 0), backlog=8) as listener,
        socket.create_connection(listener.getsockname(), timeout=WAIT_S),
    ):
        assert resources.bound_address(listener) == f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_that_is_taken_is_named_with_its_flag() -> None:
    with resources.listen("--listen", HostPort("127.0.0.1", 0), backlog=8) as listener:
        address = HostPort(*listener.getsockname())
        with pytest.raises(ConfigError, match=f"--status-listen {address}: .*name a free address"):
            resources.listen("--status-listen", address, backlog=8)


def test_a_name_that_is_no_host_s_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"--listen a\.\.b:1: this is no name of a host; name a free address"):
        resources.listen("--listen", HostPort("a..b", 1), 1)


def passed(monkeypatch: pytest.MonkeyPatch, listener: socket.socket, pid: int) -> int:
    """As a service manager passes it to the process `pid`; returns the first passed descriptor."""
    monkeypatch.setenv("LISTEN_PID", str(pid))
    monkeypatch.setenv("LISTEN_FDS", "1")
    descriptor = os.dup(listener.fileno())
    os.set_inheritable(descriptor, True)
    return descriptor


def test_a_passed_listener_is_taken_and_kept_from_what_this_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with resources.listen("--listen", HostPort("127.0.0.1", 0), backlog=8) as held:
        first = passed(monkeypatch, held, os.getpid())
        taken = resources.passed_listener("--listen", HostPort(*held.getsockname()), first)
        assert taken is not None
        assert (taken.fileno(), taken.get_inheritable()) == (first, False)
        taken.close()
        # It ended, and who connects now waits for the next.
        socket.create_connection(held.getsockname(), timeout=WAIT_S).close()


def test_a_passed_listener_at_another_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with resources.listen("--listen", HostPort("127.0.0.1", 0), backlog=8) as held:
        first = passed(monkeypatch, held, os.getpid())
        where = resources.bound_address(held)
        with pytest.raises(ConfigError, match=rf"--listen 127\.0\.0\.1:1: the socket unit listens at {where}"):
            resources.passed_listener("--listen", HostPort("127.0.0.1", 1), first)


def test_what_was_passed_to_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with resources.listen("--listen", HostPort("127.0.0.1", 0), backlog=8) as held:
        first = passed(monkeypatch, held, os.getpid() + 1)
        assert resources.passed_listener("--listen", HostPort(*held.getsockname()), first) is None
        os.close(first)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_that_a_service_is_ready(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"layercast-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        resources.tell_ready()
        assert manager.recv(100) == b"READY=1"


def test_a_service_manager_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"NOTIFY_SOCKET .*/none: No such file or directory; Type=exec"):
        resources.tell_ready()
