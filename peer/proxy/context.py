"""What the proxy is given by the program that mounts it, and what it counts. No behaviour beyond counting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from peer.registry.retry import RetrySettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from peer.node.blobs import BlobProvider
    from peer.registry.origins import Origins


class ProxyMetrics:
    """The proxy's own counters. Safe to use from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.client_bytes = Counter(
            "layercast_client_bytes", "Payload bytes sent to local clients.", ["from"], registry=registry
        )
        self.requests = Counter(
            "layercast_requests", "Requests of local clients, by subject.", ["kind", "status"], registry=registry
        )
        for origin in ("swarm", "store", "passthrough"):
            self.client_bytes.labels(origin)

    def sent(self, origin: str, size_bytes: int) -> None:
        """Payload went to a client from `swarm`, `store` or `passthrough`."""
        self.client_bytes.labels(origin).inc(size_bytes)

    def answered(self, kind: str, status: int) -> None:
        """A request was answered, or was given up after its headers."""
        self.requests.labels(kind, str(status)).inc()


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """The times and sizes the proxy keeps. All times in seconds."""

    # docker gives up its ping after 15 s, containerd an answer's headers after 30 s.
    relay_s: float = 25.0
    # The size of a blob is known by then, or the client is passed through (one direct try after 20 s).
    open_s: float = 22.0
    # How often a request that waits looks whether its client is still there.
    hangup_check_s: float = 1.0
    # How a body that its origin cut is resumed.
    retry: RetrySettings = field(default_factory=RetrySettings)
    # Threads that pass bodies through; each is one client. Further clients are sent to the origin.
    passages_max: int = 128


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """Everything the proxy needs. `pool` is small and for sendfile: its calls end within milliseconds.

    `on_passed_bytes` (payload received from an origin for one client alone) is called from any thread.
    """

    provider: BlobProvider
    origins: Origins
    pool: Executor
    metrics: ProxyMetrics
    on_passed_bytes: Callable[[int], None]
    limits: ProxyLimits = field(default_factory=ProxyLimits)
