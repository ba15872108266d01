"""What must hold in every simulated run, watched from outside: each rule is a checker, and raises when it is broken.

Checkers see what the simulation did and what the machines claimed. They change nothing. Faults are none of their
business, but for which nodes the bounds are over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bounds import bounds
from benchmarks.simulator.errors import RuleBroken
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scenario import Scenario
    from benchmarks.simulator.settings import SimulationSettings

# Sums of rates in floating point may come out early by about this part.
_ROUNDING = 1e-9
# Bytes of links and bytes of nodes are summed in different orders.
_ROUNDING_BYTES = 16.0


class Checker:
    """What a checker may look at; each takes what it needs. `node` 0 is the seed, times are seconds."""

    def opened(self, scenario: Scenario, settings: SimulationSettings) -> None:
        """Before anything else."""

    def origin_asked(self, now: float, blob: int, pieces: int, held_by_live: int) -> None:
        """The scheduler asked the origin for these pieces (mask) while live sources that it knew held those."""

    def origin_ended(self, now: float, blob: int, pieces: int) -> None:
        """What was asked so is over, whatever came of it."""

    def origin_opened(self, now: float, blob: int) -> None:
        """Every node may ask for itself from now on."""

    def arrived(self, now: float, node: int, blob: int, piece: int, size_bytes: float) -> None:
        """All of a transfer's bytes are at the node, and its hash passed."""

    def claimed(self, now: float, node: int, blob: int, piece: int) -> None:
        """A machine says that it holds the piece."""

    def completed(self, now: float, node: int) -> None:
        """A node's client has all blobs."""

    def waited(self, now: float, node: int, since_s: float) -> None:
        """Now and then: a node wants what sound live sources hold, and no piece has come to it since then."""

    def carried(self, now: float, link: str, capacity_bytes_s: float, carried_bytes: float) -> None:
        """At the end, of each link."""

    def moved(self, now: float, end: str, out: tuple[float, float], into: tuple[float, float]) -> None:
        """At the end, of each node and the origin: bytes that it sent and that its uplink carried; and bytes that it
        has, in whole pieces and in broken ones, and that its downlink carried.
        """

    def ended(self, now: float, nameless: Sequence[int]) -> None:
        """The run is over, after all other calls; these live nodes are neither complete nor have an error."""


class BytesConserved(Checker):
    """What a node holds came to it, whole; nobody is complete with less than all; what left a source came somewhere."""

    def opened(self, scenario: Scenario, settings: SimulationSettings) -> None:
        self._layouts = [scenario.layout(blob) for blob in range(len(scenario.all_blobs))]
        self._pulled = len(scenario.blobs)
        # Of each blob, by node: pieces (masks) that came, and that its machine said it holds.
        self._came = [[0] * (scenario.nodes + 1) for _ in scenario.all_blobs]
        self._claimed = [[0] * (scenario.nodes + 1) for _ in scenario.all_blobs]
        self._left_bytes = 0.0
        self._came_bytes = 0.0

    def arrived(self, now: float, node: int, blob: int, piece: int, size_bytes: float) -> None:
        needed = self._layouts[blob].length(piece)
        if size_bytes < needed:
            raise RuleBroken(f"at {now:.6f} piece {piece} came to node {node}: {size_bytes:.0f} of {needed} bytes")
        self._came[blob][node] |= 1 << piece

    def claimed(self, now: float, node: int, blob: int, piece: int) -> None:
        if not self._came[blob][node] >> piece & 1:
            needed = self._layouts[blob].length(piece)
            raise RuleBroken(f"at {now:.6f} node {node} says it holds piece {piece}: 0 of {needed} bytes came")
        self._claimed[blob][node] |= 1 << piece

    def completed(self, now: float, node: int) -> None:
        for blob, layout in enumerate(self._layouts[: self._pulled]):
            held = layout.bytes_in(self._claimed[blob][node])
            if held != layout.size_bytes:
                raise RuleBroken(f"at {now:.6f} node {node} is complete with {held} of {layout.size_bytes} bytes")

    def moved(self, now: float, end: str, out: tuple[float, float], into: tuple[float, float]) -> None:
        for word, (counted, carried) in (("sent", out), ("received", into)):
            if _differ(counted, carried):
                raise RuleBroken(f"{end} {word} {counted:.0f} bytes, its link carried {carried:.0f}")
        self._left_bytes += out[0]
        self._came_bytes += into[0]

    def ended(self, now: float, nameless: Sequence[int]) -> None:
        if _differ(self._left_bytes, self._came_bytes):
            raise RuleBroken(
                f"{self._left_bytes:.0f} bytes left their sources, {self._came_bytes:.0f} came to receivers"
            )


def _differ(one_bytes: float, other_bytes: float) -> bool:
    return abs(one_bytes - other_bytes) > _ROUNDING * one_bytes + _ROUNDING_BYTES


class BoundsKept(Checker):
    """Nobody is faster than the links allow: not one link, not one node, not the last one."""

    def opened(self, scenario: Scenario, settings: SimulationSettings) -> None:
        scenario = scenario.pulls_alone
        self._bounds = bounds(scenario)
        self._asks_s = scenario.arrivals_s()
        # The nodes that the bounds are over must all be complete before the last of them says anything.
        fates = scenario.fates()
        staying = [node for node, fate in enumerate(fates) if fate.leaves_s is None and self._asks_s[node] is not None]
        sound = [node for node in staying if not fates[node].slow and not fates[node].corrupt]
        self._needing = {node + 1 for node in sound or staying}
        self._last_s = 0.0

    def completed(self, now: float, node: int) -> None:
        # When a joiner asks is the run's to say; then its links have had at least this time in all.
        least_s = (self._asks_s[node - 1] or 0.0) + self._bounds.node_s[node - 1]
        if now < least_s * (1 - _ROUNDING):
            raise RuleBroken(f"node {node} was complete at {now:.6f} s; its links need {least_s:.6f} s")
        if node in self._needing:
            self._needing.discard(node)
            self._last_s = now

    def carried(self, now: float, link: str, capacity_bytes_s: float, carried_bytes: float) -> None:
        most_bytes = capacity_bytes_s * now * (1 + _ROUNDING)
        if carried_bytes > most_bytes:
            raise RuleBroken(f"{link} carried {carried_bytes:.0f} bytes in {now:.6f} s, at most {most_bytes:.0f}")

    def ended(self, now: float, nameless: Sequence[int]) -> None:
        for name, bound_s in (("fluid", self._bounds.fluid_s), ("piece", self._bounds.piece_s)):
            if not self._needing and self._last_s < bound_s * (1 - _ROUNDING):
                raise RuleBroken(
                    f"the last node was complete at {self._last_s:.6f} s; the {name} bound is {bound_s:.6f}"
                )


class OriginOnce(Checker):
    """No byte is asked of the origin that a live source holds or that is already on its way from there.

    Where every try at the origin failed and each node may ask for itself, nothing of that blob is looked at any more.
    """

    def opened(self, scenario: Scenario, settings: SimulationSettings) -> None:
        self._coming = [0] * len(scenario.all_blobs)
        self._open = [False] * len(scenario.all_blobs)

    def origin_asked(self, now: float, blob: int, pieces: int, held_by_live: int) -> None:
        again = pieces & (held_by_live | self._coming[blob])
        if again and not self._open[blob]:
            raise RuleBroken(f"at {now:.6f} the origin is asked again for pieces {list(indices(again))[:8]}")
        self._coming[blob] |= pieces

    def origin_ended(self, now: float, blob: int, pieces: int) -> None:
        self._coming[blob] &= ~pieces

    def origin_opened(self, now: float, blob: int) -> None:
        self._open[blob] = True


class AllEnd(Checker):
    """Every live node ends with all its blobs, or with an error that says why not."""

    def ended(self, now: float, nameless: Sequence[int]) -> None:
        if nameless:
            raise RuleBroken(
                f"at {now:.3f} s {len(nameless)} live nodes are neither complete nor know why,"
                f" first {list(nameless)[:8]}"
            )


class NobodyStarves(Checker):
    """To a node that wants what sound live sources hold, whole pieces come.

    None may come for at most 10 s, or for as long as 20 pieces take over the slowest link of any node, or, where nodes
    lose their power, for twice as long as the product waits for an answer, whichever is longest: then it is starved.
    """

    _LEAST_S = 10.0
    _PIECES = 20.0

    def opened(self, scenario: Scenario, settings: SimulationSettings) -> None:
        longest = max(scenario.layout(blob).length(0) for blob in range(len(scenario.all_blobs)))
        rates = [rate for one in scenario.classes for rate in (one.up_bytes_s, one.down_bytes_s) if rate]
        if scenario.racks and scenario.trunk_bytes_s:
            # A node's share of its rack's trunk is a link of its own as far as waiting goes.
            rates.append(scenario.trunk_bytes_s * scenario.racks / scenario.nodes)
        factor = scenario.faults.slow_factor if scenario.faults.slow_part else 1.0
        slowest_s = longest / (min(rates) * factor) if rates else 0.0
        silent_s = 2 * settings.slot_wait_s if settings.power_loss else 0.0
        self._patience_s = max(self._LEAST_S, silent_s, self._PIECES * slowest_s)

    def waited(self, now: float, node: int, since_s: float) -> None:
        if now - since_s > self._patience_s:
            raise RuleBroken(
                f"at {now:.3f} s node {node} starves: since {since_s:.3f} s no piece came to it, though others"
                " hold what it wants"
            )


def listeners(checkers: Sequence[Checker], what: str) -> list[Callable[..., None]]:
    """Of the checkers those that look at `what` at all: the method of that name."""
    return [getattr(one, what) for one in checkers if getattr(type(one), what) is not getattr(Checker, what)]


def all_checkers() -> tuple[Checker, ...]:
    """Fresh ones, for one run."""
    return (BytesConserved(), BoundsKept(), OriginOnce(), AllEnd(), NobodyStarves())
