"""An HTTP server in threads, for stand-ins: it ends at once, however long its clients keep their connections."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl

    Connection = socket.socket | tuple[bytes, socket.socket]


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open and prints nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class HttpServer(ThreadingHTTPServer):
    """On a free port, from construction to close(); a context manager. `context` makes it an https server."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], host: str = "127.0.0.1", context: ssl.SSLContext | None = None
    ) -> None:
        self._open: set[Connection] = set()
        super().__init__((host, 0), handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=type(self).__name__)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """As bound."""
        return int(self.server_address[1])

    def process_request(self, request: Connection, client_address: tuple[str, int]) -> None:
        """Remember the connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Connection) -> None:
        """The connection ends."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke at either end, or a handshake that failed, is for the client to tell."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it was given

    def close(self) -> None:
        """Hang up on everybody and wait for all threads."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            assert isinstance(connection, socket.socket)
            with contextlib.suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
