"""An upload port that answers every request for pieces with the right number of wrong bytes."""

from __future__ import annotations

import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from peer.transport.wire import format_answer, nonce_path
from proto.wire.tickets import NONCE_BYTES

if TYPE_CHECKING:
    from proto.pieces import PieceLayout


class EvilUploads(ThreadingHTTPServer):
    """Serves from construction to the end of its `with` block; `served` lists the pieces it gave, in order."""

    block_on_close = True

    def __init__(self, layout: PieceLayout) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.layout = layout
        self.served: list[int] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="evil-uploads")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An idle connection must not keep the test from ending.
    timeout = 2
    server: EvilUploads

    def do_GET(self) -> None:
        pieces = re.search(r"/pieces/(\d+)-(\d+)$", self.path)
        if self.path == nonce_path():
            self.wfile.write(format_answer(204, 0, nonce=os.urandom(NONCE_BYTES)))
        elif pieces is None:
            self.wfile.write(format_answer(404, 0))
        else:
            asked = range(int(pieces[1]), int(pieces[2]) + 1)
            size_bytes = sum(self.server.layout.length(piece) for piece in asked)
            self.server.served += asked
            self.wfile.write(format_answer(200, size_bytes) + b"\xee" * size_bytes)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
