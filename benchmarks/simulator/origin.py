"""The simulated registry, and what the product does when it refuses, waits or stands still: the same retries.

A blob's body is one stream over the origin's uplink, piece by piece in order; whoever asked gives it up after the
product's read timeout and asks for the rest. Requests whether a blob is public are always answered at once.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Protocol

from peer.node.origin_fetch import RETRY_AFTER_MAX_S, RETRY_WAITS_S
from peer.registry.connection import OriginTimeouts
from supernode.origin.fetch import RetrySettings
from supernode.origin.registry import RATE_LIMIT_PATIENCE_S

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from benchmarks.scenario import Scenario
    from benchmarks.simulator.clock import Clock
    from benchmarks.simulator.network import Network
    from benchmarks.simulator.settings import SimulationSettings
    from benchmarks.simulator.transfer import Endpoint

REFUSED = "rate_limited"
UNAVAILABLE = "unavailable"
CANCELLED = "cancelled"


class Patience(Protocol):
    """When to ask again after a failure."""

    def wait_s(self, now: float) -> float | None:
        """Seconds until a request may be sent; None: not in time."""
        ...

    def after(self, now: float, retry_after_s: float, came_bytes: int) -> float | None:
        """A request failed, after so many bytes of this fetch in all: seconds until the next; None: give it up."""
        ...


class SupernodeGate:
    """Retry-After, obeyed for all blobs (supernode.origin.rate_limiter)."""

    def __init__(self) -> None:
        self.closed_until_s = 0.0


class SupernodePatience:
    """As supernode.origin.fetch does it, by its own settings."""

    def __init__(self, gate: SupernodeGate, rng: random.Random, now: float) -> None:
        self._gate = gate
        self._rng = rng
        self._retry = RetrySettings()
        self._failures = 0
        self._came_bytes = 0
        self._progress_s = now

    def wait_s(self, now: float) -> float | None:
        """See Patience."""
        left_s = max(0.0, self._gate.closed_until_s - now)
        return left_s if left_s <= RATE_LIMIT_PATIENCE_S else None

    def after(self, now: float, retry_after_s: float, came_bytes: int) -> float | None:
        """See Patience."""
        self._gate.closed_until_s = max(self._gate.closed_until_s, now + retry_after_s)
        if retry_after_s > RATE_LIMIT_PATIENCE_S:
            return None
        retry = self._retry
        progress = came_bytes - self._came_bytes
        self._came_bytes = came_bytes
        if progress:
            self._progress_s = now
        self._failures = 1 if progress >= retry.progress_bytes else self._failures + 1
        if self._failures >= retry.failures_min and now - self._progress_s >= retry.without_progress_s:
            return None
        delay_s = min(retry.delay_max_s, retry.first_delay_s * 2.0 ** (self._failures - 1))
        return delay_s * (0.5 + self._rng.random() / 2)


class PeerPatience:
    """As peer.node.origin_fetch does it."""

    def __init__(self) -> None:
        self._failures = 0
        self._came_bytes = 0

    def wait_s(self, now: float) -> float | None:
        """See Patience."""
        return 0.0

    def after(self, now: float, retry_after_s: float, came_bytes: int) -> float | None:
        """See Patience."""
        self._failures = 0 if came_bytes > self._came_bytes else self._failures + 1
        self._came_bytes = came_bytes
        if self._failures > len(RETRY_WAITS_S) or retry_after_s > RETRY_AFTER_MAX_S:
            return None
        return max(retry_after_s, RETRY_WAITS_S[max(0, self._failures - 1)])


class Fetch:
    """Somebody's fetch of pieces of one blob, with its retries. `ended` is called once, with "" or what went wrong."""

    def __init__(
        self,
        origin: Origin,
        to: Endpoint,
        blob: int,
        pieces: deque[int],
        patience: Patience,
        stored: Callable[[int], None],
        ended: Callable[[str], None],
    ) -> None:
        self.to = to
        self.life = to.life
        self.blob = blob
        self.pieces = pieces
        self.patience = patience
        self.stored = stored
        self.ended = ended
        self.came_bytes = 0
        self.stopped = False
        self._origin = origin

    def stop(self) -> None:
        """End after the piece in hand."""
        self.stopped = True


class Origin:
    """All requests for blobs, and what was sent."""

    def __init__(self, clock: Clock, network: Network, scenario: Scenario, settings: SimulationSettings) -> None:
        self._clock = clock
        self._network = network
        self._settings = settings
        self._behaviour = scenario.origin
        self._layouts = [scenario.layout(blob) for blob in range(len(scenario.blobs))]
        self._stall_at_bytes = scenario.origin.stall_after_part * scenario.size_bytes
        self._stall_left_s = scenario.origin.stall_s
        self._refused_left = scenario.origin.refused
        self._read_s = OriginTimeouts().read_s
        self._sent = [0] * len(scenario.blobs)
        self._supernode_gate = SupernodeGate()
        self._rng = random.Random(f"origin {scenario.seed}")
        self.bytes = 0
        # Of these, past the supernode.
        self.bytes_to_nodes = 0
        self.repeated_bytes = 0
        self.gets = 0

    def supernode_patience(self) -> SupernodePatience:
        """For one fetch of the supernode's."""
        return SupernodePatience(self._supernode_gate, self._rng, self._clock.now)

    def fetch(
        self,
        to: Endpoint,
        blob: int,
        pieces: deque[int],
        patience: Patience,
        stored: Callable[[int], None],
        ended: Callable[[str], None],
    ) -> Fetch:
        """Begin. `stored` is called for each piece once its hash is known."""
        fetch = Fetch(self, to, blob, pieces, patience, stored, ended)
        self._request(fetch)
        return fetch

    def _request(self, fetch: Fetch) -> None:
        wait_s = fetch.patience.wait_s(self._clock.now)
        if wait_s is None:
            self._end(fetch, REFUSED)
        elif wait_s > 0.0:
            self._clock.after(wait_s, lambda: self._request(fetch))
        else:
            self._get(fetch)

    def _gone(self, fetch: Fetch) -> bool:
        """Whether nobody waits for the answer any more."""
        return not fetch.to.alive or fetch.to.life != fetch.life

    def _get(self, fetch: Fetch) -> None:
        if self._gone(fetch):
            return
        if fetch.stopped:
            self._end(fetch, CANCELLED)
            return
        self.gets += 1
        round_trip_s = self._settings.round_trip_s
        if self._refused_left:
            self._refused_left -= 1
            retry_after_s = self._behaviour.retry_after_s
            self._clock.after(round_trip_s, lambda: self._failed(fetch, REFUSED, retry_after_s))
        else:
            self._wait(fetch, self._behaviour.first_byte_s, round_trip_s)

    def _wait(self, fetch: Fetch, silent_s: float, further_s: float) -> None:
        """Nothing comes for so long; then the next piece does, unless the other side has given up."""
        if silent_s >= self._read_s:
            self._clock.after(self._read_s, lambda: self._failed(fetch, UNAVAILABLE, 0.0))
        else:
            self._clock.after(silent_s + further_s, lambda: self._next(fetch))

    def _failed(self, fetch: Fetch, reason: str, retry_after_s: float) -> None:
        if self._gone(fetch):
            return
        delay_s = fetch.patience.after(self._clock.now, retry_after_s, fetch.came_bytes)
        if delay_s is None:
            self._end(fetch, reason)
        else:
            self._clock.after(delay_s, lambda: self._request(fetch))

    def _next(self, fetch: Fetch) -> None:
        """The next piece of the body; the connection does not pause between two."""
        if self._gone(fetch):
            return
        if fetch.stopped:
            self._end(fetch, CANCELLED)
            return
        piece = fetch.pieces[0]
        size = self._layouts[fetch.blob].length(piece)
        if self._stall_left_s and self.bytes + size > self._stall_at_bytes:
            stall_s, self._stall_left_s = self._stall_left_s, 0.0
            self._wait(fetch, stall_s, 0.0)
            return
        path = self._network.path_from_origin(fetch.to.number)
        self._network.links.start(path, float(size), lambda: self._sent_piece(fetch, piece, size))

    def _sent_piece(self, fetch: Fetch, piece: int, size: int) -> None:
        self.bytes += size
        self.bytes_to_nodes += size if fetch.to.number else 0
        if self._sent[fetch.blob] >> piece & 1:
            self.repeated_bytes += size
        self._sent[fetch.blob] |= 1 << piece
        fetch.to.received_bytes += size
        if self._gone(fetch):
            return
        fetch.came_bytes += size
        fetch.pieces.popleft()
        last = not fetch.pieces
        self._clock.after(self._settings.hash_s, lambda: self._stored(fetch, piece, last=last))
        if not last:
            self._next(fetch)

    def _stored(self, fetch: Fetch, piece: int, *, last: bool) -> None:
        if self._gone(fetch):
            return
        fetch.to.held[fetch.blob] |= 1 << piece
        fetch.stored(piece)
        if last:
            self._end(fetch, "")

    def _end(self, fetch: Fetch, reason: str) -> None:
        fetch.ended(reason)
