"""Reading of a socket by a test that knows what is to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def receive(sock: socket.socket, size: int = 65536) -> bytes:
    """What comes next. Raises ConnectionError where the other end has sent all: a loop would wait without end."""
    received = sock.recv(size)
    if not received:
        raise ConnectionError("the other end has sent all")
    return received
