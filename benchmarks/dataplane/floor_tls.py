"""The bare floor of private pieces: preadv and TLS on one side, TLS, BLAKE3, SHA-256 and pwrite on the other."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.dataplane.contract import Marks
from benchmarks.dataplane.floor import take
from benchmarks.dataplane.layercast_tls import member

if TYPE_CHECKING:
    import ssl

    from benchmarks.dataplane.contract import Job, Sending


def send(job: Job, sending: Sending) -> None:
    """One connection, one buffer after another."""
    context = member(job, "sender").server
    assert context is not None
    with socket.create_server(("127.0.0.1", 0)) as listener, Path(job.source_file).open("rb") as source:
        sending.started(f"127.0.0.1:{listener.getsockname()[1]}")
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as sock:
            buffer = memoryview(bytearray(job.buffer_bytes))
            sent = 0
            while sent < job.size_bytes:
                count = os.preadv(source.fileno(), [buffer], sent)
                sock.sendall(buffer[:count])
                sent += count
        sending.wait_for_end()


def receive(job: Job, address: str) -> Marks:
    """As the floor does it."""
    context = member(job, "receiver").client
    assert context is not None
    marks = Marks()
    marks.begin()
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.settimeout(None)
        with context.wrap_socket(plain) as sock:
            take(job, lambda room: _fill(sock, room))
    marks.reached("all")
    return marks


def _fill(sock: ssl.SSLSocket, room: memoryview) -> int:
    """A TLS record has 16 KiB: a buffer takes several."""
    filled = 0
    while filled < len(room) and (count := sock.recv_into(room[filled:])):
        filled += count
    return filled
