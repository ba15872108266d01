"""The operator's door: a command, its lines and its end, by a unix socket of the service's own user."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from proto.errors import LocalError
from proto.runtime.operator_socket import NAME, OperatorSocket, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def count(argument: str, say: Callable[[str], None]) -> tuple[str, int]:
    for number in range(int(argument)):
        say(str(number))
    return "counted", 3


def refuse(argument: str, _: Callable[[str], None]) -> tuple[str, int]:
    raise LocalError(f"{argument} is in use")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose path is longer than a socket's may be."""
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    door = OperatorSocket(folder, {"count": count, "refuse": refuse})
    yield folder
    door.close()


def test_a_command_says_lines_and_ends(service: Path) -> None:
    said: list[str] = []
    assert ask(service, "count", "2", said.append) == ("counted", 3)
    assert said == ["0", "1"]


def test_a_refusal_is_one_line(service: Path) -> None:
    assert ask(service, "refuse", "it", print) == ("it is in use", 1)


def test_an_unknown_command_is_told(service: Path) -> None:
    ended = ask(service, "fly", "", print)
    assert ended is not None
    assert ended[1] == 1
    assert "does not know" in ended[0]


def test_nonsense_is_answered_and_the_next_is_served(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(service)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(NAME)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert b'"code": 1' in connection.recv(1000)
    assert ask(service, "count", "0", print) == ("counted", 3)


def test_nobody_else_may_use_it(service: Path) -> None:
    assert stat.S_IMODE((service / NAME).stat().st_mode) == 0o600


def test_without_a_service_there_is_nobody_to_ask(tmp_path: Path) -> None:
    assert ask(tmp_path, "count", "1", print) is None
    OperatorSocket(tmp_path, {}).close()
    assert ask(tmp_path, "count", "1", print) is None


def test_what_a_killed_service_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(NAME)
    door = OperatorSocket(tmp_path, {"count": count})
    assert ask(tmp_path, "count", "0", print) == ("counted", 3)
    door.close()
