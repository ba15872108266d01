"""Free TCP ports that stay free for the program that was promised them, also while it is not running."""

from __future__ import annotations

import socket


class ReservedPort:
    """A free port of `host`, bound and never listened on until `close`.

    The program that gets it binds it too (each server here sets SO_REUSEADDR). While that program is stopped, nobody
    who asks for any free port is given this one, and whoever connects is refused.
    """

    def __init__(self, host: str) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, 0))
        except BaseException:
            self._socket.close()
            raise
        self.host: str = host
        self.port: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._socket.close()
