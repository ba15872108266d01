"""Prometheus counters of a service's datagrams, the same for both. Counting only.

See proto.datagram_lane.Meter for what is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Datagrams that left, those of them that did so once more, and frames that then went by TCP.
DATAGRAM_EVENTS: Final = ("sent", "copied", "websocket")


class DatagramMetrics:
    """Of all sessions that the registry's service has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "layercast_datagrams", "Datagrams of sessions: sent, copied, or lost to the WebSocket.", ["event"],
            registry=registry,
        )  # fmt: skip
        # Looked up once: labels() takes longer than counting.
        self._by_event = {event: counter.labels(event) for event in DATAGRAM_EVENTS}
        self._round_trip = Histogram(
            "layercast_datagram_round_trip_seconds", "From a datagram to its answer.", registry=registry
        )

    def count(self, event: str, count: int = 1) -> None:
        """Of DATAGRAM_EVENTS."""
        self._by_event[event].inc(count)

    def round_trip(self, seconds: float) -> None:
        """From a frame to its answer."""
        self._round_trip.observe(seconds)
