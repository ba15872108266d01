"""The simulated registry, and what the product does when it refuses, waits or stands still: the same retries.

A blob's body is one stream over the origin's uplink, piece by piece in order; whoever asked gives it up after the
product's read timeout and asks for the rest. Requests whether a blob is public are always answered at once.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from peer.registry.retry import NODE_RETRY, Retry, RetrySettings
from peer.registry.sockets import OriginTimeouts

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


class Fetch:
    """Somebody's fetch of pieces of one blob, with its retries. `ended` is called once, with "" or what went wrong."""

    def __init__(
        self,
        to: Endpoint,
        blob: int,
        pieces: deque[int],
        retry: Retry,
        stored: Callable[[int], None],
        ended: Callable[[str], None],
    ) -> None:
        self.to = to
        self.life = to.life
        self.blob = blob
        self.pieces = pieces
        self.retry = retry
        self.stored = stored
        self.ended = ended
        # Since its last failure.
        self.came_bytes = 0
        self.stopped = False

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
        self._layouts = [scenario.layout(blob) for blob in range(len(scenario.all_blobs))]
        self._stall_at_bytes = scenario.origin.stall_after_part * scenario.size_bytes
        self._stall_left_s = scenario.origin.stall_s
        self._refused_left = scenario.origin.refused
        self._read_s = OriginTimeouts().read_s
        self._sent = [0] * len(scenario.all_blobs)
        # Retry-After, obeyed for all blobs by the node that got it: by node (0: the supernode), the time it ends.
        self._limited_until_s: dict[int, float] = {}
        self._rng = random.Random(f"origin {scenario.seed}")
        self.bytes = 0
        # Of these, past the supernode.
        self.bytes_to_nodes = 0
        self.repeated_bytes = 0
        self.gets = 0

    def fetch(
        self,
        to: Endpoint,
        blob: int,
        pieces: deque[int],
        stored: Callable[[int], None],
        ended: Callable[[str], None],
    ) -> Fetch:
        """Begin. `stored` is called for each piece once its hash is known."""
        retry = Retry(_settings(to), self._rng.random, self._clock.now)
        fetch = Fetch(to, blob, pieces, retry, stored, ended)
        self._request(fetch)
        return fetch

    def _request(self, fetch: Fetch) -> None:
        wait_s = self._limited_until_s.get(fetch.to.number, 0.0) - self._clock.now
        if wait_s > _settings(fetch.to).retry_after_max_s:
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
        now, node = self._clock.now, fetch.to.number
        self._limited_until_s[node] = max(now + retry_after_s, self._limited_until_s.get(node, 0.0))
        if fetch.came_bytes:
            fetch.retry.received(fetch.came_bytes, now)
            fetch.came_bytes = 0
        delay_s = fetch.retry.delay_s(now, retry_after_s)
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


def _settings(to: Endpoint) -> RetrySettings:
    return NODE_RETRY if to.number else RetrySettings()
