"""A client's own small request, as a registry answers it: each answer is the registry's own, and not decompressed.

Redirects are followed as far as peer.registry.redirects allows. If the target of a redirect refuses, the answer is the
redirect itself, which the client may follow with a login of its own. Asked in threads, awaited on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from peer.registry.addresses import upstream_endpoint
from peer.registry.base import OriginAnswer
from peer.registry.queues import Work
from peer.registry.redirects import REDIRECT_STATUSES, REDIRECTS_MAX, lines_for, redirect_target
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.registry.client import OriginHttp
    from peer.registry.exchange import Exchange
    from peer.registry.queues import UpstreamQueues
    from peer.registry.redirects import Lines
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

# Registries take manifests of 4 MiB.
BODY_BYTES_MAX: Final = 32 * 1024 * 1024


def as_sent(lines: Iterable[tuple[str, str]]) -> Lines:
    """Values byte for byte: the web server read them as UTF-8, and the connection writes Latin-1."""
    return [(n, v.encode("utf-8", "surrogateescape").decode("latin-1")) for n, v in lines]


class RelayClient:
    """Sends to all registries. ask() on an event loop."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        on_request: Callable[[str], None],
        queues: UpstreamQueues,
        http: OriginHttp,
    ) -> None:
        """`on_request` is told the method of each request that leaves for a registry."""
        self._upstreams = upstreams
        self._on_request = on_request
        self._queues = queues
        self._http = http

    async def ask(
        self, method: str, upstream: UpstreamConfig, target: str, headers: CIMultiDict[str], *, wants_body: bool
    ) -> OriginAnswer:
        """The registry's answer to this request. Raises UpstreamError.

        Without `wants_body` that of a success is left out.
        """
        cancel = Cancellation()
        asked = as_sent(headers.items())

        def run() -> OriginAnswer:
            with contextlib.closing(self._ask(method, upstream, target, asked, cancel)) as exchange:
                body = exchange.read_all(BODY_BYTES_MAX) if wants_body or exchange.status >= 300 else b""
                lines = CIMultiDict(exchange.lines)
                if body:
                    lines["Content-Length"] = str(len(body))
                return OriginAnswer(exchange.status, exchange.reason, lines, body)

        try:
            return await asyncio.wrap_future(self._queues.submit(Work.RELAY, upstream.host, run))
        except asyncio.CancelledError:
            cancel.cancel()
            raise

    def _ask(self, method: str, upstream: UpstreamConfig, target: str, lines: Lines, cancel: Cancellation) -> Exchange:
        """In a thread. The first answer is kept open until a better one is there."""
        anonymous = not upstream.shared
        endpoint = upstream_endpoint(upstream, anonymous=anonymous)
        self._on_request(method)
        first = answer = self._http.send(endpoint, method, target, lines, cancel)
        try:
            for _ in range(REDIRECTS_MAX):
                location = answer.header("Location")
                if answer.status not in REDIRECT_STATUSES or location is None:
                    break
                leads_to, target = redirect_target(
                    self._upstreams(), upstream, endpoint, target, location, anonymous=anonymous
                )
                endpoint, lines = leads_to, lines_for(leads_to, endpoint, lines)
                if answer is not first:
                    answer.close()
                self._on_request(method)
                answer = self._http.send(endpoint, method, target, lines, cancel)
        except UpstreamError:
            if answer is not first:
                answer.close()
            return first  # the client may get there by itself
        except BaseException:
            answer.close()
            first.close()
            raise
        refused = answer.status >= 400 or answer.status in REDIRECT_STATUSES
        kept, other = (first, answer) if refused else (answer, first)
        if other is not kept:
            other.close()
        return kept
