"""The supernode's Prometheus metrics. Counting only; no digest and no peer is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from proto.datagram_lane import DATAGRAM_EVENTS


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
        self._datagrams = Counter(
            "layercast_datagrams", "Datagrams of sessions: sent, copied, or lost to the WebSocket.", ["event"],
            registry=self.registry,
        )  # fmt: skip
        self._datagram_round_trip = Histogram(
            "layercast_datagram_round_trip_seconds", "From a datagram to its answer.", registry=self.registry
        )
        # Looked up once: labels() takes longer than counting.
        self._datagrams_by_event = {event: self._datagrams.labels(event) for event in DATAGRAM_EVENTS}
        for source in ("origin", "peer"):
            self.bytes_received.labels(source)
        for outcome in ("granted", "stored", "failed", "expired", "cancelled"):
            self.leases.labels(outcome)
        for method in ("GET", "HEAD", "TOKEN"):
            self.origin_requests.labels(method)
        for result in ("ok", "mismatch"):
            self.digest_checks.labels(result)

    def datagrams(self, event: str, count: int = 1) -> None:
        """See proto.datagram_lane.Meter."""
        self._datagrams_by_event[event].inc(count)

    def round_trip(self, seconds: float) -> None:
        """See proto.datagram_lane.Meter."""
        self._datagram_round_trip.observe(seconds)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
