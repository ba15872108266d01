"""The Prometheus metrics that both services have. Counting only; no digest and no peer is ever a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ServiceMetrics:
    """A registry of its own, so that one process can have several. Safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._before_scrape: list[Callable[[], None]] = []
        self.bytes_received = self._counter("layercast_bytes", "Payload bytes received and used, by source.", "source")
        self.uploaded_bytes = self._gauge("layercast_uploaded_bytes_total", "Payload bytes sent to peers.")
        self.origin_requests = self._counter("layercast_origin_requests", "Requests to origins, by method.", "method")
        self.origin_bytes = self._counter("layercast_origin_bytes", "Payload bytes received from origins.")
        labels = ("upstream", "work")
        self._origin_waiting = self._gauge(
            "layercast_origin_waiting", "Work that waits for its upstream's turn.", *labels
        )
        self._origin_wait = self._counter("layercast_origin_wait_seconds", "Time that work has waited so.", *labels)
        self.blobs_refused = self._counter("layercast_blobs_refused", "Blobs not shared when asked for.", "reason")
        self.leases = self._counter("layercast_leases", "Leases, by outcome.", "outcome")
        self.swarms_open = self._gauge("layercast_swarms_open", "Blobs wanted and not complete.")
        self.upload_refused = self._gauge(
            "layercast_upload_refused_total", "Requests of peers refused or cut off, by reason.", "reason"
        )
        self.store_bytes = self._gauge("layercast_store_bytes", "Bytes in the store.")
        self.rotten_pieces = self._gauge(
            "layercast_rotten_pieces_total", "Pieces of the store that rotted and were dropped.", "found_by"
        )
        self.scrubbed_bytes = self._gauge("layercast_scrubbed_bytes_total", "Bytes that the scrub has read.")
        self.store_full = self._gauge("layercast_store_full_total", "What found no room in the store.", "reason")
        self.digest_checks = self._counter("layercast_digest_checks", "Digests of whole blobs compared.", "result")
        # Shown as 0 before the first of a kind.
        for outcome in ("granted", "stored", "failed", "expired", "cancelled"):
            self.leases.labels(outcome)
        for method in ("GET", "HEAD", "TOKEN"):
            self.origin_requests.labels(method)
        for reason in ("busy", "ticket", "not_held", "stalled", "share"):
            self.upload_refused.labels(reason)
        for result in ("ok", "mismatch"):
            self.digest_checks.labels(result)
        # An alert looks for a rise of it, which a first 1 is not.
        self.blobs_refused.labels("rate_limited")
        self.count_store({}, {}, 0)

    def count_store(self, rotten: Mapping[str, int], full: Mapping[str, int], scrubbed_bytes: int) -> None:
        """What the store has counted since its start: pieces by who found them, refusals by reason."""
        for found_by in ("client", "peer", "scrub", "digest", "complaint", "operator"):
            self.rotten_pieces.labels(found_by).set(rotten.get(found_by, 0))
        for reason in ("limit", "floor", "disk"):
            self.store_full.labels(reason).set(full.get(reason, 0))
        self.scrubbed_bytes.set(scrubbed_bytes)

    def count_origin_request(self, method: str) -> None:
        """A request went to an origin: GET, HEAD or TOKEN."""
        self.origin_requests.labels(method).inc()

    def queue_changed(self, upstream: str, work: str, change: int, waited_s: float) -> None:
        """Work at an upstream began or ceased to wait; see peer.registry.queues.OnQueue."""
        self._origin_waiting.labels(upstream, work).inc(change)
        self._origin_wait.labels(upstream, work).inc(waited_s)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call this before each text(), to bring gauges up to date."""
        self._before_scrape.append(refresh)

    def uploads_refused(self, by_reason: Mapping[str, int]) -> None:
        """So many requests of peers, since the service began."""
        for reason, count in by_reason.items():
            self.upload_refused.labels(reason).set(count)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)
