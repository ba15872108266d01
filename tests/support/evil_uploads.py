"""An upload port that answers every request for pieces with the right number of wrong bytes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from peer.transport.wire import format_answer, nonce_path
from proto.wire.tickets import NONCE_BYTES
from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    from proto.pieces import PieceLayout


class EvilUploads(HttpServer):
    """Serves from construction to the end of its `with` block; `served` lists the pieces it gave, in order."""

    def __init__(self, layout: PieceLayout) -> None:
        self.layout = layout
        self.served: list[int] = []
        super().__init__(_Handler)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"


class _Handler(QuietHandler):
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
