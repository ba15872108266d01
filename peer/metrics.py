"""The peer's Prometheus metrics, beside those of every service."""

from __future__ import annotations

import math
import threading
from typing import Final

from proto.runtime.metrics import ServiceMetrics

# How long a rate that is shown looks back.
SMOOTHING_S: Final = 3.0


class Metrics(ServiceMetrics):
    """Counting only; no digest and no peer is ever a label."""

    def __init__(self) -> None:
        super().__init__()
        self._received_lock = threading.Lock()
        # From peers, the seed and origins together.
        self.received_total_bytes = 0
        self.upload_rate = self._gauge("layercast_upload_rate_bytes_per_second", "Sent to peers over the last seconds.")
        self.download_rate = self._gauge("layercast_download_rate_bytes_per_second", "Received over the last seconds.")
        self.supernode_connected = self._gauge(
            "layercast_supernode_connected", "1 while a session with the supernode is open."
        )
        self.discarded_bytes = self._counter(
            "layercast_discarded_bytes",
            "Payload bytes from peers that came to no use: second copies, and transfers that failed.",
        )
        self.piece_failures = self._counter(
            "layercast_piece_failures", "Transfers of pieces that failed at this node, by reason.", "reason"
        )
        for reason in ("busy", "connection", "corrupt", "local", "not_held", "ticket", "timeout"):
            self.piece_failures.labels(reason)
        self.fallbacks = self._counter(
            "layercast_fallbacks", "Fetches of this node from an origin in the supernode's place, by reason.", "reason"
        )
        for reason in ("elected", "open", "no_supernode", "not_shared"):
            self.fallbacks.labels(reason)
        self.client_bytes = self._counter("layercast_client_bytes", "Payload bytes sent to local clients.", "from")
        self.requests = self._counter("layercast_requests", "Requests of local clients, by subject.", "kind", "status")
        self.connects = self._counter(
            "layercast_connects", "Tunnels that clients asked the forward proxy for, and what it refused.", "result"
        )
        for result in ("intercepted", "tunnelled", "refused"):
            self.connects.labels(result)
        self.tunnels_open = self._gauge("layercast_tunnels_open", "Tunnels of clients, intercepted ones among them.")
        self.permissions_asked = self._counter(
            "layercast_permissions_asked", "Questions to origins whether a client may read a blob, by answer.", "answer"
        )
        for answer in ("allowed", "refused", "unanswered", "stale"):
            self.permissions_asked.labels(answer)
        self.manifests = self._counter("layercast_manifests", "Manifests given to clients, by where from.", "from")
        for origin in ("cluster", "origin"):
            self.manifests.labels(origin)
        self.stale_answers = self._counter(
            "layercast_stale_answers", "Last answers given in place of origins that were down, by kind.", "kind"
        )
        for kind in ("ping", "manifest", "blob"):
            self.stale_answers.labels(kind)
        self.pushed_bytes = self._counter("layercast_pushed_bytes", "Payload that clients sent to their registries.")
        for origin in ("swarm", "store", "passthrough"):
            self.client_bytes.labels(origin)
        for source in ("peer", "seed", "origin", "passthrough"):
            self.bytes_received.labels(source)

    def lease(self, outcome: str) -> None:
        """A lease was `granted`, or ended `stored`, `failed`, `expired` or `cancelled`."""
        self.leases.labels(outcome).inc()

    def fallback(self, reason: str) -> None:
        """This node asks an origin itself, see peer.downloader.contract.FetchUpstream."""
        self.fallbacks.labels(reason).inc()

    def received(self, source: str, size_bytes: int) -> None:
        """Payload came from `peer`, `seed`, `origin` or `passthrough`."""
        self.bytes_received.labels(source).inc(size_bytes)
        with self._received_lock:
            self.received_total_bytes += size_bytes

    def origin_received(self, size_bytes: int) -> None:
        """Payload came from an origin into the store."""
        self.received("origin", size_bytes)
        self.origin_bytes.inc(size_bytes)

    def passed_through(self, size_bytes: int) -> None:
        """Payload came from an origin for one client and was not stored."""
        self.received("passthrough", size_bytes)
        self.origin_bytes.inc(size_bytes)

    def sent(self, origin: str, size_bytes: int) -> None:
        """Payload went to a client from `swarm`, `store` or `passthrough`."""
        self.client_bytes.labels(origin).inc(size_bytes)

    def permission_asked(self, answer: str) -> None:
        """An origin was asked whether a client may read a blob: `allowed`, `refused` or `unanswered`.

        `stale`: it was not, and what it said before counts.
        """
        self.permissions_asked.labels(answer).inc()

    def manifest_given(self, origin: str) -> None:
        """A client got a manifest from the `cluster` (this node's store among it) or its `origin`."""
        self.manifests.labels(origin).inc()

    def pushed(self, size_bytes: int) -> None:
        """Payload of a client went on to its registry. From any thread."""
        self.pushed_bytes.inc(size_bytes)

    def answered(self, kind: str, status: int) -> None:
        """A request was answered, or was given up after its headers."""
        self.requests.labels(kind, str(status)).inc()


class RateMeter:
    """How fast bytes went by lately: feed it a growing total now and then; `bytes_s` fades with SMOOTHING_S."""

    def __init__(self) -> None:
        self.bytes_s = 0.0
        self._last: tuple[float, float] | None = None

    def sample(self, total_bytes: float, now: float) -> float:
        """Take a reading; returns the smoothed rate in bytes a second."""
        if self._last is not None and now > self._last[1]:
            elapsed_s = now - self._last[1]
            rate = (total_bytes - self._last[0]) / elapsed_s
            weight = 1.0 - math.exp(-elapsed_s / SMOOTHING_S)
            self.bytes_s += weight * (rate - self.bytes_s)
        self._last = (total_bytes, now)
        return self.bytes_s
