"""Addresses at which nobody answers: by a word of the kernel's, or not even by that."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.services import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def address_that_refuses() -> Iterator[str]:
    """HOST:PORT where nothing listens."""
    with contextlib.closing(ReservedPort(LOOPBACK)) as port:
        yield port.address


@contextlib.contextmanager
def address_without_answer() -> Iterator[str]:
    """HOST:PORT where connecting takes for ever: a listener whose backlog is full, so that the kernel drops SYNs."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        host, port = listener.getsockname()
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield f"{host}:{port}"
