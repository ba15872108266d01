"""What must hold in every simulated run, watched from outside: each rule is a checker, and raises when it is broken.

Checkers see what the world did and what the machines claimed. They change nothing, and they know no faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.scenario import bounds
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.simulator.scenario import Scenario

# Sums of rates in floating point may come out early by about this part.
_ROUNDING = 1e-9


class RuleBroken(AssertionError):
    """A simulated run did what must never be: our own bug, in a machine or in the simulator."""


class Checker:
    """What a checker may look at; each takes what it needs. `node` 0 is the seed, times are seconds."""

    def opened(self, scenario: Scenario) -> None:
        """Before anything else."""

    def granted(self, now: float, lease: int, source: int, receiver: int) -> None:
        """The scheduler gave a lease."""

    def lease_ended(self, now: float, lease: int) -> None:
        """It was told its outcome, or took the lease back."""

    def origin_asked(self, now: float, pieces: int, held_by_live: int) -> None:
        """The scheduler asked the origin for these pieces (mask) while live nodes held those."""

    def began(self, now: float, source: int, running: int) -> None:
        """A source began a transfer; so many run there now."""

    def arrived(self, now: float, node: int, piece: int, size_bytes: float) -> None:
        """All of a transfer's bytes are at the node."""

    def claimed(self, now: float, node: int, piece: int) -> None:
        """A machine says that it holds the piece."""

    def completed(self, now: float, node: int) -> None:
        """A machine says that its blob is complete."""

    def carried(self, now: float, link: str, capacity_bytes_s: float, up_bytes: float, down_bytes: float) -> None:
        """At the end, of each link: bytes that left a source over it, or that came to a receiver; the other is 0."""

    def ended(self, now: float, incomplete: Sequence[int]) -> None:
        """The run is over, and `carried` told; these live nodes are not complete."""


class BytesConserved(Checker):
    """What a node holds came to it, whole; and nobody is complete with less than all of it."""

    def opened(self, scenario: Scenario) -> None:
        """See Checker."""
        self._layout = scenario.layout
        self._bytes: dict[int, dict[int, float]] = {}
        self._claimed: dict[int, int] = {}
        self._left_bytes = 0.0
        self._came_bytes = 0.0

    def arrived(self, now: float, node: int, piece: int, size_bytes: float) -> None:
        """See Checker."""
        pieces = self._bytes.setdefault(node, {})
        pieces[piece] = max(pieces.get(piece, 0.0), size_bytes)

    def claimed(self, now: float, node: int, piece: int) -> None:
        """See Checker."""
        came, needed = self._bytes.get(node, {}).get(piece, 0.0), self._layout.length(piece)
        if came < needed:
            raise RuleBroken(f"at {now:.6f} node {node} says it holds piece {piece}: {came:.0f} of {needed} bytes came")
        self._claimed[node] = self._claimed.get(node, 0) | 1 << piece

    def completed(self, now: float, node: int) -> None:
        """See Checker."""
        held = self._layout.bytes_in(self._claimed.get(node, 0))
        if held != self._layout.size_bytes:
            raise RuleBroken(f"at {now:.6f} node {node} is complete with {held} of {self._layout.size_bytes} bytes")

    def carried(self, now: float, link: str, capacity_bytes_s: float, up_bytes: float, down_bytes: float) -> None:
        """See Checker."""
        self._left_bytes += up_bytes
        self._came_bytes += down_bytes

    def ended(self, now: float, incomplete: Sequence[int]) -> None:
        """See Checker."""
        if abs(self._left_bytes - self._came_bytes) > _ROUNDING * self._left_bytes:
            raise RuleBroken(
                f"{self._left_bytes:.0f} bytes left their sources, {self._came_bytes:.0f} came to receivers"
            )


class BoundsKept(Checker):
    """Nobody is faster than the links allow: not one link, not one node, not the last one."""

    def opened(self, scenario: Scenario) -> None:
        """See Checker."""
        self._scenario = scenario
        self._bounds = bounds(scenario)
        self._last_s = 0.0

    def completed(self, now: float, node: int) -> None:
        """See Checker."""
        self._last_s = now
        inbound = min(
            self._scenario.origin_rate_bytes_s, self._scenario.supernode_rate_bytes_s, self._scenario.rate_bytes_s
        )
        least_s = self._scenario.size_bytes / inbound
        if now < least_s * (1 - _ROUNDING):
            raise RuleBroken(f"node {node} was complete at {now:.6f} s; its links need {least_s:.6f} s")

    def carried(self, now: float, link: str, capacity_bytes_s: float, up_bytes: float, down_bytes: float) -> None:
        """See Checker."""
        most_bytes = capacity_bytes_s * now * (1 + _ROUNDING)
        if up_bytes + down_bytes > most_bytes:
            raise RuleBroken(
                f"{link} carried {up_bytes + down_bytes:.0f} bytes in {now:.6f} s, at most {most_bytes:.0f}"
            )

    def ended(self, now: float, incomplete: Sequence[int]) -> None:
        """See Checker."""
        for name, bound_s in (("fluid", self._bounds.fluid_s), ("piece", self._bounds.piece_s)):
            if not incomplete and self._last_s < bound_s * (1 - _ROUNDING):
                raise RuleBroken(
                    f"the last node was complete at {self._last_s:.6f} s; the {name} bound is {bound_s:.6f}"
                )


class OriginOnce(Checker):
    """No byte is asked of the origin that a live node holds or that is already on its way from there."""

    def opened(self, scenario: Scenario) -> None:
        """See Checker."""
        self._coming = 0

    def origin_asked(self, now: float, pieces: int, held_by_live: int) -> None:
        """See Checker."""
        again = pieces & (held_by_live | self._coming)
        if again:
            raise RuleBroken(f"at {now:.6f} the origin is asked again for pieces {list(indices(again))[:8]}")
        self._coming |= pieces

    def claimed(self, now: float, node: int, piece: int) -> None:
        """See Checker."""
        if node == 0:
            self._coming &= ~(1 << piece)


class SlotsKept(Checker):
    """A source runs no more transfers than it has slots; a node has at most one lease ahead for each slot."""

    def opened(self, scenario: Scenario) -> None:
        """See Checker."""
        self._slots = scenario.slots
        self._leases: dict[int, tuple[int, int]] = {}
        self._out: dict[int, int] = {}
        self._in: dict[int, int] = {}

    def granted(self, now: float, lease: int, source: int, receiver: int) -> None:
        """See Checker."""
        self._leases[lease] = (source, receiver)
        for way, node, count in (("from", source, self._out), ("to", receiver, self._in)):
            count[node] = count.get(node, 0) + 1
            if count[node] > 2 * self._slots:
                raise RuleBroken(f"at {now:.6f} {count[node]} leases {way} node {node}, which has {self._slots} slots")

    def lease_ended(self, now: float, lease: int) -> None:
        """See Checker."""
        source, receiver = self._leases.pop(lease, (None, None))
        if source is not None and receiver is not None:
            self._out[source] -= 1
            self._in[receiver] -= 1

    def began(self, now: float, source: int, running: int) -> None:
        """See Checker."""
        if running > self._slots:
            raise RuleBroken(f"at {now:.6f} node {source} sends {running} pieces at a time with {self._slots} slots")


class AllComplete(Checker):
    """Every live node ends with its blob complete: nobody starves."""

    def ended(self, now: float, incomplete: Sequence[int]) -> None:
        """See Checker."""
        if incomplete:
            raise RuleBroken(
                f"at {now:.3f} s {len(incomplete)} live nodes are not complete, first {list(incomplete)[:8]}"
            )


def all_checkers() -> tuple[Checker, ...]:
    """Fresh ones, for one run."""
    return (BytesConserved(), BoundsKept(), OriginOnce(), SlotsKept(), AllComplete())
