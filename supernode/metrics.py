"""The supernode's Prometheus metrics, beside those of every service."""

from __future__ import annotations

from proto.runtime.metrics import ServiceMetrics


class Metrics(ServiceMetrics):
    """Counting only; no digest and no peer is ever a label."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions_open = self._gauge("layercast_sessions_open", "Sessions with peers.")
        self.refused = self._counter("layercast_refused", "Sessions refused or ended, by code.", "code")
        for source in ("origin", "peer"):
            self.bytes_received.labels(source)
