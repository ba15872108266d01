"""The supernode's Prometheus metrics. Counting only; no digest and no peer is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest


class Metrics:
    """One registry per process part, so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.bytes_received = Counter(
            "layercast_bytes", "Payload bytes received, by source.", ["source"], registry=self.registry
        )
        self.uploaded_bytes = Gauge(
            "layercast_uploaded_bytes_total", "Payload bytes sent to peers.", registry=self.registry
        )
        self.origin_requests = Counter(
            "layercast_origin_requests", "Requests to origins, by method.", ["method"], registry=self.registry
        )
        self.origin_bytes = Counter(
            "layercast_origin_bytes", "Payload bytes received from origins.", registry=self.registry
        )
        self.leases = Counter("layercast_leases", "Leases, by outcome.", ["outcome"], registry=self.registry)
        self.sessions_open = Gauge("layercast_sessions_open", "Sessions with peers.", registry=self.registry)
        self.swarms_open = Gauge("layercast_swarms_open", "Open swarms.", registry=self.registry)
        self.store_bytes = Gauge("layercast_store_bytes", "Bytes in the store.", registry=self.registry)
        self.digest_checks = Counter(
            "layercast_digest_checks", "Digests of whole blobs compared.", ["result"], registry=self.registry
        )
        self.refused = Counter(
            "layercast_refused", "Sessions refused or ended, by code.", ["code"], registry=self.registry
        )
        for source in ("origin", "peer"):
            self.bytes_received.labels(source)
        for outcome in ("granted", "stored", "failed", "expired", "cancelled"):
            self.leases.labels(outcome)
        for method in ("GET", "HEAD", "TOKEN"):
            self.origin_requests.labels(method)
        for result in ("ok", "mismatch"):
            self.digest_checks.labels(result)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
