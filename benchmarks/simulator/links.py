"""How transfers share links: max-min fair and exact, or each its local share. Knows no nodes, no pieces, no policy.

Exact: of all links the one with the least capacity per open transfer sets the rate of its transfers; then the next,
with what is left. Only transfers that are connected through shared links with what changed are worked out anew.
Local: a transfer has min(capacity / transfers) over its links, which leaves unused what one end cannot take.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call, Clock


class Flow:
    """Bytes on their way over some links. `left_bytes` holds at `seen_s`; `rate_bytes_s` since then."""

    __slots__ = ("done", "end", "left_bytes", "links", "rate_bytes_s", "seen_s", "size_bytes")

    def __init__(self, links: tuple[int, ...], size_bytes: float, now: float, done: Callable[[], None]) -> None:
        self.links = links
        self.size_bytes = size_bytes
        self.left_bytes = size_bytes
        self.rate_bytes_s = 0.0
        self.seen_s = now
        self.done = done
        self.end: Call | None = None

    def progress(self, now: float) -> None:
        """Count what moved since the rate was set."""
        self.left_bytes = max(0.0, self.left_bytes - self.rate_bytes_s * (now - self.seen_s))
        self.seen_s = now


class Links:
    """All links by number, and the open flows. Rates are bytes/s."""

    def __init__(self, clock: Clock, *, exact: bool) -> None:
        self._clock = clock
        self._exact = exact
        self.capacity_bytes_s: list[float] = []
        self._flows: list[dict[Flow, None]] = []
        self._changed: dict[int, None] = {}
        # What each link carried to its end, and parts of what was cancelled.
        self.carried_bytes: list[float] = []

    def add(self, capacity_bytes_s: float) -> int:
        """A link more; its number."""
        self.capacity_bytes_s.append(capacity_bytes_s)
        self._flows.append({})
        self.carried_bytes.append(0.0)
        return len(self._flows) - 1

    def flows_on(self, link: int) -> int:
        """Open flows of a link."""
        return len(self._flows[link])

    def start(self, links: tuple[int, ...], size_bytes: float, done: Callable[[], None]) -> Flow:
        """Begin to move bytes; `done` is called when they are through."""
        flow = Flow(links, size_bytes, self._clock.now, done)
        for link in links:
            self._flows[link][flow] = None
        self._touch(flow)
        return flow

    def stop(self, flow: Flow) -> float:
        """End it before its time; the bytes that had moved."""
        flow.progress(self._clock.now)
        self._close(flow)
        return flow.size_bytes - flow.left_bytes

    def _close(self, flow: Flow) -> None:
        if flow.end is not None:
            flow.end.cancel()
        moved = flow.size_bytes - flow.left_bytes
        for link in flow.links:
            del self._flows[link][flow]
            self.carried_bytes[link] += moved
        self._touch(flow)

    def _ended(self, flow: Flow) -> None:
        flow.left_bytes = 0.0
        self._close(flow)
        flow.done()

    def _touch(self, flow: Flow) -> None:
        if not self._changed:
            # Once for all that happens at this instant.
            self._clock.after(0.0, self._share)
        for link in flow.links:
            self._changed[link] = None

    def _share(self) -> None:
        changed, self._changed = self._changed, {}
        if self._exact:
            self._share_exactly(changed)
        else:
            for flow in {flow: None for link in changed for flow in self._flows[link]}:
                self._set_rate(flow, min(self.capacity_bytes_s[link] / len(self._flows[link]) for link in flow.links))

    def _share_exactly(self, changed: dict[int, None]) -> None:
        links, flows = self._connected(changed)
        left = {link: self.capacity_bytes_s[link] for link in links}
        open_flows = {link: len(self._flows[link]) for link in links}
        shares = [(left[link] / open_flows[link], link) for link in links]
        heapq.heapify(shares)
        while flows:
            share, link = heapq.heappop(shares)
            count = open_flows[link]
            if not count:
                continue
            current = left[link] / count
            if current > share:
                heapq.heappush(shares, (current, link))
                continue
            for flow in self._flows[link]:
                if flow in flows:
                    del flows[flow]
                    self._set_rate(flow, current)
                    for other in flow.links:
                        left[other] = max(0.0, left[other] - current)
                        open_flows[other] -= 1

    def _connected(self, changed: dict[int, None]) -> tuple[list[int], dict[Flow, None]]:
        links = {link: None for link in changed if self._flows[link]}
        queue = list(links)
        flows: dict[Flow, None] = {}
        for link in queue:
            for flow in self._flows[link]:
                if flow not in flows:
                    flows[flow] = None
                    for other in flow.links:
                        if other not in links:
                            links[other] = None
                            queue.append(other)
        return queue, flows

    def _set_rate(self, flow: Flow, rate_bytes_s: float) -> None:
        if flow.end is not None and abs(flow.rate_bytes_s - rate_bytes_s) <= 1e-12 * rate_bytes_s:
            return
        flow.progress(self._clock.now)
        flow.rate_bytes_s = rate_bytes_s
        if flow.end is not None:
            flow.end.cancel()
        # A share of nothing left is a rounding error's doing: the flow waits for the next change.
        flow.end = (
            self._clock.after(flow.left_bytes / rate_bytes_s, lambda: self._ended(flow)) if rate_bytes_s else None
        )
