"""The bare floor: sendfile on one side, recv_into, BLAKE3, SHA-256 and pwrite on the other; no protocol at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import blake3

from benchmarks.dataplane.contract import Marks
from proto.errors import LocalError
from proto.ids import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.dataplane.contract import Job, Sending


def send(job: Job, sending: Sending) -> None:
    """One connection, one sendfile after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Path(job.source_file).open("rb") as source:
        sending.started(f"127.0.0.1:{listener.getsockname()[1]}")
        sock, _ = listener.accept()
        with sock:
            sent = 0
            while sent < job.size_bytes:
                sent += os.sendfile(sock.fileno(), source.fileno(), sent, job.size_bytes - sent)
        sending.wait_for_end()


def receive(job: Job, address: str) -> Marks:
    """One connection."""
    marks = Marks()
    marks.begin()
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.settimeout(None)
        take(job, lambda room: sock.recv_into(room, 0, socket.MSG_WAITALL))
    marks.reached("all")
    return marks


def take(job: Job, receive_into: Callable[[memoryview], int]) -> None:
    """A buffer of job.buffer_bytes, a fresh BLAKE3 for each piece. `receive_into` fills what it is given."""
    target = Path(job.target)
    target.mkdir()
    digest = Digest.parse(job.digest)
    with (target / "blob").open("wb", buffering=0) as file:
        whole, piece = digest.hasher(), blake3.blake3()
        buffer = memoryview(bytearray(job.buffer_bytes))
        offset = in_piece = 0
        while offset < job.size_bytes:
            room = min(len(buffer), job.size_bytes - offset, job.piece_size_bytes - in_piece)
            count = receive_into(buffer[:room])
            if not count:
                raise LocalError("the floor's sender is gone")
            part = buffer[:count]
            piece.update(part)
            whole.update(part)
            os.pwrite(file.fileno(), part, offset)
            offset += count
            in_piece += count
            if in_piece == job.piece_size_bytes:
                piece.digest()
                piece, in_piece = blake3.blake3(), 0
        piece.digest()
        if whole.hexdigest() != digest.hex:
            raise LocalError("the floor received another blob")
