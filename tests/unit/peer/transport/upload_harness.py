"""What the tests of the upload server share: two blobs, and a client that says exactly what is on the wire."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import WAIT_S
from peer.transport.wire import HEAD_END, format_request, nonce_path, parse_answer, pieces_path
from proto.ids import peer_name
from proto.wire.tickets import Identity, issue_ticket, prove_connection
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from peer.transport.server import UploadServer
    from peer.transport.wire import Answer

SUPERNODE = Identity.generate()
DOWNLOADER = Identity.generate()
UPLOADER = peer_name(Identity.generate().peer)
SMALL = some_blob(10_000, piece_size_bytes=4096)
# More than the sockets between can hold: its sender must wait for its receiver.
LARGE = some_blob(16 << 20, piece_size_bytes=16 << 20, seed=2)


class Client:
    """A few lines of HTTP."""

    def __init__(
        self,
        server: UploadServer,
        *,
        receive_buffer_bytes: int = 0,
        downloader: Identity = DOWNLOADER,
        address: str = "127.0.0.1",
    ) -> None:
        host, port = server.address.split(":")
        self.downloader = downloader
        self.sock = socket.socket()
        self.sock.bind((address, 0))
        if receive_buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect((host, int(port)))
        self.rest = b""
        self.nonce = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def ask(self, path: str, ticket: bytes = b"", proof: bytes = b"") -> tuple[Answer, bytes]:
        self.send(format_request(path, "test", ticket, proof))
        return self.answer()

    def answer(self) -> tuple[Answer, bytes]:
        while HEAD_END not in self.rest:
            self.rest += self.receive()
        head, _, self.rest = self.rest.partition(HEAD_END)
        answer = parse_answer(head)
        while len(self.rest) < answer.length_bytes:
            self.rest += self.receive()
        body, self.rest = self.rest[: answer.length_bytes], self.rest[answer.length_bytes :]
        return answer, body

    def receive(self) -> bytes:
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise EOFError
        return chunk

    def wait_for_bytes(self) -> None:
        """Until some are there to be read."""
        self.sock.recv(1, socket.MSG_PEEK)

    def has_bytes(self) -> bool:
        """Whether some are there to be read."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(1 << 20):
                pass
        return True

    def ticket(self, blob_digest: object = SMALL.digest) -> tuple[bytes, bytes]:
        """A ticket and its proof for this connection."""
        if not self.nonce:
            self.nonce = self.ask(nonce_path())[0].nonce
        ticket = issue_ticket(SUPERNODE, blob_digest, self.downloader.peer, time.time() + 3600)  # type: ignore[arg-type]  # a Digest
        return ticket, prove_connection(self.downloader, UPLOADER, self.nonce, ticket)

    def begin_large(self) -> None:
        """Take up a slot: ask for the large piece and read nothing of it."""
        self.send(format_request(pieces_path(LARGE.digest, 0, 0), "test", *self.ticket(LARGE.digest)))
