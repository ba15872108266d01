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
