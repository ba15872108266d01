"""One request of a client: what it asks for, which upstream that may come from, and whether the client still waits.

With what the program that mounts the proxy gives to it. What may be *given* to a client is the origin's to say, each
time; here is only whom we ask at all. No bytes of a body.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from peer.proxy.client_socket import ClientGone
from peer.proxy.heads import for_blobs, for_origin
from peer.registry.base import Caller
from peer.registry.retry import RetrySettings
from proto.oci.routes import BlobRoute, RegistryRequest
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from aiohttp import web

    from peer.metrics import Metrics
    from peer.node.blobs import BlobProvider
    from peer.permission.gate import PermissionGate
    from peer.permission.last_answers import LastAnswers
    from peer.registry.origins import Origins
    from proto.oci.upstreams import UpstreamConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """The times and sizes the proxy keeps. All times in seconds."""

    # docker gives up its ping after 15 s, containerd an answer's headers after 30 s.
    relay_s: float = 25.0
    # The size of a blob is known by then, or the client is passed through.
    open_s: float = 25.0
    # Headers wait for the first byte, so that an error can still be sent, but no longer than this after the request.
    headers_s: float = 26.0
    # How often a request that waits looks whether its client is still there.
    hangup_check_s: float = 1.0
    # So long a tag's answer counts for the next who asks the same with the same credential.
    tag_s: float = 1.0
    # How a body that its origin cut is resumed.
    retry: RetrySettings = field(default_factory=RetrySettings)
    # Threads that pass bodies of one upstream through; each is one client. Further clients are sent to the origin.
    passages_max: int = 128


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """Everything the proxy needs. `pool` is small and for sendfile: its calls end within milliseconds."""

    provider: BlobProvider
    origins: Origins
    permissions: PermissionGate
    answers: LastAnswers
    pool: Executor
    metrics: Metrics
    limits: ProxyLimits = field(default_factory=ProxyLimits)
    # Names that the mirror answers to, beside those of loopback and its addresses.
    hosts: tuple[str, ...] = ()
    # Whether clients may push through it now.
    push_allowed: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request that was understood, and the upstream that it may go to."""

    http: web.Request
    registry: RegistryRequest
    upstream: UpstreamConfig
    context: ProxyContext

    @property
    def blob(self) -> BlobRoute:
        """Which blob; of a request for one."""
        assert isinstance(self.registry.route, BlobRoute)
        return self.registry.route

    @property
    def source(self) -> Source:
        """From where that blob may be asked."""
        return Source(self.upstream.host, self.blob.repository)

    @property
    def caller(self) -> Caller:
        """With what an origin is asked on this client's behalf."""
        lines = for_origin(self.http.headers)
        return Caller(lines.get("Authorization"), anonymous=not self.upstream.shared, lines=for_blobs(lines))

    @property
    def hung_up(self) -> bool:
        """Whether the client has closed its connection."""
        return self.http.transport is None or self.http.transport.is_closing()

    async def wait_for(
        self, work: asyncio.Future[T], stop: Callable[[], object], discard: Callable[[T], object] | None = None
    ) -> T:
        """The result of `work`. When the client hangs up, or this wait is cancelled, `stop` is called to end the work.

        Never returns while the work still runs: it may be using the client's socket. A result that comes too late goes
        to `discard`. Raises ClientGone, and what the work raises.
        """
        gone = False
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=self.context.limits.hangup_check_s)
                if not gone and not work.done() and self.hung_up:
                    gone = True
                    stop()
        except asyncio.CancelledError:
            stop()
            await asyncio.wait({work})
            _drop(work, discard)
            raise
        if gone:
            _drop(work, discard)
            raise ClientGone("client hung up")
        return work.result()


def _drop(work: asyncio.Future[T], discard: Callable[[T], object] | None) -> None:
    if not work.cancelled() and work.exception() is None and discard is not None:
        discard(work.result())
