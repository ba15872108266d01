"""Keep-alive connections that are idle now, by address. It hands them out, and sends no request itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from peer.transport.connection import HttpConnection, TlsConnection

if TYPE_CHECKING:
    from peer.transport.member_tls import MemberTls
    from proto.wire.tickets import Identity

# A connection costs some kilobytes, a new one three round trips and a signature: those to a few hundred nodes are kept,
# and the longest idle goes first beyond this.
_IDLE_MAX: Final = 256


class ConnectionPool:
    """Safe to use from any thread. A connection belongs to whoever took it until it is given back."""

    def __init__(
        self, identity: Identity, tls: MemberTls, *, encrypt_all: bool, connect_timeout_s: float, idle_s: float
    ) -> None:
        self._identity = identity
        self._tls = tls
        self._encrypt_all = encrypt_all
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        # Longest idle first.
        self._idle: list[HttpConnection] = []
        self._closed = False

    def take(self, address: str, *, encrypted: bool = False) -> HttpConnection:
        """The one used last (`used` is then true), or one that must be opened."""
        encrypted = encrypted or self._encrypt_all
        with self._lock:
            stale = self._cut(time.monotonic() - self._idle_s)
            fitting = (each for each in reversed(self._idle) if (each.address, each.encrypted) == (address, encrypted))
            found = next(fitting, None)
            if found is not None:
                self._idle.remove(found)
        _close_all(stale)
        if found is not None:
            return found
        if encrypted:
            return TlsConnection(address, self._identity, self._connect_timeout_s, self._tls)
        return HttpConnection(address, self._identity, self._connect_timeout_s)

    def has(self, address: str, *, encrypted: bool = False) -> bool:
        """Whether one is idle now."""
        encrypted = encrypted or self._encrypt_all
        with self._lock:
            return any((each.address, each.encrypted) == (address, encrypted) for each in self._idle)

    def give(self, connection: HttpConnection, *, keep: bool) -> None:
        """Back from its user: kept warm, or closed."""
        with self._lock:
            if keep and not self._closed:
                connection.used = True
                connection.idle_since_s = time.monotonic()
                self._idle.append(connection)
                stale = self._idle[:-_IDLE_MAX]
                del self._idle[:-_IDLE_MAX]
            else:
                stale = [connection]
        _close_all(stale)

    def close(self) -> None:
        """Close all that are idle, and from now on all that come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        _close_all(idle)

    def _cut(self, before_s: float) -> list[HttpConnection]:
        """Take out those idle since before then."""
        stale = [each for each in self._idle if each.idle_since_s < before_s]
        self._idle = self._idle[len(stale) :]
        return stale


def _close_all(connections: list[HttpConnection]) -> None:
    for connection in connections:
        connection.close()
