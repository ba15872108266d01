"""The peer's Prometheus metrics. Counting only; no digest and no peer is ever a label."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable


class Metrics:
    """A registry of its own, so that one process can have several. Safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._before_scrape: list[Callable[[], None]] = []
        self._received_lock = threading.Lock()
        # From peers, the seed and origins together.
        self.received_total_bytes = 0
        self.bytes_received = Counter(
            "layercast_bytes", "Payload bytes received and used, by source.", ["source"], registry=self.registry
        )
        self.discarded_bytes = Counter(
            "layercast_discarded_bytes",
            "Payload bytes from peers that came to no use: second copies, and transfers that failed.",
            registry=self.registry,
        )
        self.uploaded_bytes = Gauge(
            "layercast_uploaded_bytes_total", "Payload bytes sent to peers.", registry=self.registry
        )
        self.upload_rate = Gauge(
            "layercast_upload_rate_bytes_per_second", "Sent to peers over the last seconds.", registry=self.registry
        )
        self.download_rate = Gauge(
            "layercast_download_rate_bytes_per_second", "Received over the last seconds.", registry=self.registry
        )
        self.origin_requests = Counter(
            "layercast_origin_requests", "Requests to origins, by method.", ["method"], registry=self.registry
        )
        self.origin_bytes = Counter(
            "layercast_origin_bytes", "Payload bytes received from origins.", registry=self.registry
        )
        self.leases = Counter("layercast_leases", "Leases, by outcome.", ["outcome"], registry=self.registry)
        self.supernode_connected = Gauge(
            "layercast_supernode_connected", "1 while a session with the supernode is open.", registry=self.registry
        )
        self.swarms_open = Gauge("layercast_swarms_open", "Blobs wanted and not complete.", registry=self.registry)
        self.store_bytes = Gauge("layercast_store_bytes", "Bytes in the store.", registry=self.registry)
        self.digest_checks = Counter(
            "layercast_digest_checks", "Digests of whole blobs compared.", ["result"], registry=self.registry
        )
        # Looked up once: labels() takes longer than counting.
        self._received = {
            source: self.bytes_received.labels(source) for source in ("peer", "seed", "origin", "passthrough")
        }
        self._leases = {
            outcome: self.leases.labels(outcome) for outcome in ("granted", "stored", "failed", "expired", "cancelled")
        }
        for method in ("GET", "HEAD", "TOKEN"):
            self.origin_requests.labels(method)
        for result in ("ok", "mismatch"):
            self.digest_checks.labels(result)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call this before each text()."""
        self._before_scrape.append(refresh)

    def lease(self, outcome: str) -> None:
        """A lease was `granted`, or ended `stored`, `failed`, `expired` or `cancelled`."""
        self._leases[outcome].inc()

    def received(self, source: str, size_bytes: int) -> None:
        """Payload came from `peer`, `seed`, `origin` or `passthrough`."""
        self._received[source].inc(size_bytes)
        with self._received_lock:
            self.received_total_bytes += size_bytes

    def origin_received(self, size_bytes: int) -> None:
        """Payload came from an origin into the store."""
        self.received("origin", size_bytes)
        self.origin_bytes.inc(size_bytes)

    def passed_through(self, size_bytes: int) -> None:
        """Payload came from an origin for one client alone."""
        self.received("passthrough", size_bytes)
        self.origin_bytes.inc(size_bytes)

    def origin_asked(self, method: str) -> None:
        """A request went to an origin."""
        self.origin_requests.labels(method).inc()

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)
