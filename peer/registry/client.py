"""Blocking HTTP exchanges with origins, their CDNs and token services, over connections kept for reuse.

It follows no redirect, knows no credential and no registry, and ignores HTTP_PROXY and its kin: a proxy is used
where the operator configured one for that upstream.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from typing import TYPE_CHECKING, Final

from peer.registry.connection import OriginConnection
from peer.registry.exchange import Exchange
from peer.registry.sockets import OriginTimeouts, origin_errors, resolve, tls_context

if TYPE_CHECKING:
    from peer.registry.addresses import Endpoint, Resolver
    from peer.registry.base import SentBody
    from peer.transport.cancellation import Cancellation

_REPEATABLE: Final = frozenset({"GET", "HEAD"})
# Registries and their CDNs close idle connections after 60 s or more; we close ours earlier.
IDLE_CONNECTION_S = 30.0
IDLE_CONNECTIONS_PER_ENDPOINT = 8
# CDN hosts come and go with redirects; the least recently used ones are closed above this.
IDLE_CONNECTIONS_MAX = 64


class OriginHttp:
    """Sends requests and hands out responses. Safe to use from many threads."""

    def __init__(self, timeouts: OriginTimeouts | None = None, *, resolver: Resolver = resolve) -> None:
        self._timeouts = timeouts or OriginTimeouts()
        self._resolver = resolver
        self._lock = threading.Lock()
        self._idle: list[OriginConnection] = []  # least recently used first
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        self._closed = False

    def send(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        cancel: Cancellation,
        body: SentBody | None = None,
    ) -> Exchange:
        """Send a request; return when the response's head is there. The caller closes the exchange.

        What may not be sent twice gets a connection of its own. `headers` tell the length of `body`.

        Raises UpstreamError (unavailable, or denied for the address) and FetchCancelled.
        """
        cancel.check()
        while method in _REPEATABLE and (idle := self._take_idle(endpoint)) is not None:
            # A server may close an idle connection as we write to it: that says nothing about the server.
            dropped = contextlib.suppress(ConnectionError, ssl.SSLEOFError)
            with origin_errors(endpoint, cancel, "waiting for an answer"), dropped:
                return self._exchange(idle, method, target, headers, cancel)
            cancel.check()
        connection = OriginConnection.open(endpoint, self._context(endpoint), self._timeouts, self._resolver, cancel)
        with origin_errors(endpoint, cancel, "waiting for an answer"):
            return self._exchange(connection, method, target, headers, cancel, body)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their exchanges end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(
        self,
        connection: OriginConnection,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        cancel: Cancellation,
        body: SentBody | None = None,
    ) -> Exchange:
        try:
            cancel.attach(connection.sock)
            response = connection.send(method, target, headers, body)
        except BaseException:
            cancel.detach(connection.sock)
            connection.close()
            raise
        return Exchange(connection, response, cancel, self._give_back, head=method == "HEAD")

    def _context(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if endpoint.scheme == "http":
            return None
        key = (endpoint.ca_file, endpoint.client_cert, endpoint.client_key)
        with self._lock:
            if key not in self._contexts:
                self._contexts[key] = tls_context(endpoint)
            return self._contexts[key]

    def _take_idle(self, endpoint: Endpoint) -> OriginConnection | None:
        """The most recently used live connection to exactly this endpoint. Also closes old ones."""
        with self._lock:
            oldest_s = time.monotonic() - IDLE_CONNECTION_S
            stale = [c for c in self._idle if c.idle_since_s < oldest_s or c.is_dropped()]
            self._idle = [c for c in self._idle if c not in stale]
            found = next((c for c in reversed(self._idle) if c.endpoint == endpoint), None)
            if found is not None:
                self._idle.remove(found)
        for connection in stale:
            connection.close()
        return found

    def _give_back(self, connection: OriginConnection) -> None:
        connection.idle_since_s = time.monotonic()
        surplus: list[OriginConnection] = []
        with self._lock:
            if self._closed:
                surplus.append(connection)
            else:
                self._idle.append(connection)
                same = [c for c in self._idle if c.endpoint == connection.endpoint]
                surplus += same[: max(0, len(same) - IDLE_CONNECTIONS_PER_ENDPOINT)]
                surplus += [c for c in self._idle if c not in surplus][:-IDLE_CONNECTIONS_MAX]
                self._idle = [c for c in self._idle if c not in surplus]
        for dropped in surplus:
            dropped.close()
