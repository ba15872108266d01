"""A channel to a receiver that takes its bytes, or does not."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from peer.transport.channel import PlainChannel
from peer.transport.sockets import unsent_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 1 << 20


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sender's end, and that of a receiver with little room."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        receiver.connect(listener.getsockname())
        sender, _ = listener.accept()
        with sender:
            yield sender, receiver


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "piece"
    path.write_bytes(bytes(SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_receiver_that_takes_nothing_is_given_up(ends: tuple[socket.socket, socket.socket], file: int) -> None:
    channel = PlainChannel(ends[0])
    channel.begin(0.02)
    channel.hold(SIZE)
    assert channel.send_file(file, 0, SIZE // 2)
    with pytest.raises(TimeoutError):
        channel.await_left(8 * 1024)


def test_bytes_have_left_once_the_receiver_took_them(ends: tuple[socket.socket, socket.socket], file: int) -> None:
    channel = PlainChannel(ends[0])
    channel.begin(60.0)
    channel.hold(SIZE)
    sent = channel.send_file(file, 0, SIZE // 2)
    received = 0
    while received < sent:
        received += len(ends[1].recv(SIZE))
    channel.await_left(8 * 1024)
    assert unsent_size(ends[0]) <= 8 * 1024


def test_a_receiver_that_is_gone_has_not_taken_the_rest(ends: tuple[socket.socket, socket.socket], file: int) -> None:
    channel = PlainChannel(ends[0])
    channel.begin(60.0)
    channel.hold(SIZE)
    channel.send_file(file, 0, SIZE // 2)
    ends[1].close()  # with bytes unread: a reset
    with pytest.raises(OSError, match="gone"):
        channel.await_left(8 * 1024)
