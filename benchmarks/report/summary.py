"""From what a run gave to the figures a report shows: quantiles, and ratios to the bounds. It formats nothing.

Times are those of the nodes that the bounds are over (see benchmarks.bounds): the sound ones that ask while the blobs
are distributed. The others are in groups of their own. A figure is None where the run cannot give it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.results import Mode, ModeRun, NodeTimes
    from benchmarks.scenario import Scenario

_GIB = 1 << 30
# In place of a fate, for nodes that ask when all others are complete.
JOINER = "joiner"


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one class and fate; times from their own requests, the bound for the slowest way to be complete."""

    class_name: str
    fate: str
    nodes: int
    complete: int
    p50_s: float | None
    p99_s: float | None
    # max(F/d_class, fluid bound over the live capacity); F/d_class alone where requests are spread.
    bound_s: float
    x_bound: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One mode's figures."""

    run: ModeRun
    makespan_s: float | None
    p1_s: float | None
    p50_s: float | None
    p99_s: float | None
    # (p99 - p1) / p50; None where requests are spread too.
    spread: float | None
    # From each node's own request.
    first_byte_p50_s: float | None
    # The last node's time from the origin's first byte.
    after_origin_s: float | None
    x_fluid: float | None
    x_piece: float | None
    # Of what was run: where only a part of the size was, the ratio is to that part.
    origin_x_size: float
    origin_gets_per_blob: float
    cross_rack_x_minimum: float | None
    reduction_vs_native: float | None
    x_native: float | None
    # From a layer's request to its first byte, and CPU for a node and layer; None where there is one layer.
    layer_wait_p50_s: float | None
    cpu_ms_per_layer: float | None
    # Nodes that failed or are not complete, but for those that left.
    errors: int
    # Empty where all nodes are alike.
    groups: tuple[Group, ...]
    # Each complete node's time from its own request over its own bound; empty where all ask at once.
    own_x_bound: dict[int, float]


@dataclass(frozen=True)
class Report:
    """All that is told of one scenario. `links` is what one kind of run knows of them (its round trip), `more` are
    sections of the JSON document that one kind alone has.
    """

    scenario: Scenario
    limits: Bounds
    runs: Sequence[ModeRun]
    title: str = ""
    links: Mapping[str, object] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def figures(self) -> tuple[Summary, ...]:
        """Each mode's, in the order of the runs."""
        native_s = [time_s for run in self.runs if run.mode == "native" for time_s in self.completed_s(run)[-1:]]
        return tuple(self._summary(run, native_s[0] if native_s else None) for run in self.runs)

    def of(self, mode: Mode) -> Summary | None:
        """The figures of that mode, if it ran."""
        return next((one for one in self.figures if one.run.mode == mode), None)

    def completed_s(self, run: ModeRun) -> list[float]:
        """When the nodes that the bounds are over were complete, ascending; without those that are not."""
        return sorted(node.completed_s for node in self._measured(run) if node.completed_s is not None)

    def _summary(self, run: ModeRun, native_s: float | None) -> Summary:
        scenario, limits, times = self.scenario, self.limits, self.completed_s(run)
        p1_s, p50_s, p99_s, makespan_s = (quantile(times, part) for part in (0.01, 0.5, 0.99, 1.0))
        first = sorted(one.first_byte_s - one.asked_s for one in self._measured(run) if one.first_byte_s is not None)
        share = ratio(makespan_s, native_s) if run.mode != "native" else None
        spread = None
        if p1_s is not None and p99_s is not None and not scenario.arrivals.poisson_per_s:
            spread = ratio(p99_s - p1_s, p50_s)
        after_origin_s = None
        if makespan_s is not None and run.origin_first_byte_s is not None:
            after_origin_s = makespan_s - run.origin_first_byte_s
        layers = len(scenario.blobs)
        waits = sorted(one.layer_wait_s for one in self._measured(run) if one.layer_wait_s is not None)
        cpu_ms = None
        if layers > 1 and run.cpu_s_per_gib is not None:
            cpu_ms = 1000 * run.cpu_s_per_gib * scenario.size_bytes / _GIB / layers
        least_cross = limits.cross_rack_bytes * run.size_fraction if limits.cross_rack_bytes else None
        return Summary(
            run=run,
            makespan_s=makespan_s,
            p1_s=p1_s,
            p50_s=p50_s,
            p99_s=p99_s,
            spread=spread,
            first_byte_p50_s=quantile(first, 0.5),
            after_origin_s=after_origin_s,
            x_fluid=ratio(makespan_s, limits.fluid_s),
            x_piece=ratio(makespan_s, limits.piece_s),
            origin_x_size=run.origin_bytes / (scenario.size_bytes * run.size_fraction),
            origin_gets_per_blob=run.origin_gets / layers,
            cross_rack_x_minimum=ratio(run.cross_rack_bytes, least_cross),
            reduction_vs_native=None if share is None else 1.0 - share,
            x_native=share,
            layer_wait_p50_s=quantile(waits, 0.5) if layers > 1 else None,
            cpu_ms_per_layer=cpu_ms,
            errors=sum(bool(node.error) or (node.completed_s is None and node.fate != "left") for node in run.nodes),
            groups=self._groups(run),
            own_x_bound=self._own_x_bound(run),
        )

    def _joins(self, node: NodeTimes) -> bool:
        return node.node >= self.scenario.nodes - self.scenario.arrivals.joiners

    def _measured(self, run: ModeRun) -> Iterable[NodeTimes]:
        """The nodes that the bounds are over, chosen as benchmarks.bounds chooses them."""
        nodes = [node for node in run.nodes if not self._joins(node)]
        staying = [node for node in nodes if node.fate != "left"]
        return [node for node in staying if not node.fate] or staying or nodes

    def _groups(self, run: ModeRun) -> tuple[Group, ...]:
        members: dict[tuple[str, str], list[NodeTimes]] = {}
        for node in run.nodes:
            fate = JOINER if self._joins(node) else node.fate
            members.setdefault((node.class_name, fate), []).append(node)
        if len(members) < 2:
            return ()
        return tuple(self._group(*key, members[key]) for key in sorted(members))

    def _group(self, class_name: str, fate: str, nodes: Sequence[NodeTimes]) -> Group:
        scenario, limits = self.scenario, self.limits
        took = sorted(node.completed_s - node.asked_s for node in nodes if node.completed_s is not None)
        bound_s = limits.class_s[class_name] / (scenario.faults.slow_factor if fate == "slow" else 1.0)
        if fate != JOINER and not scenario.arrivals.poisson_per_s:
            bound_s = max(bound_s, limits.live_fluid_s)
        p99_s = quantile(took, 0.99)
        return Group(
            class_name, fate, len(nodes), len(took), quantile(took, 0.5), p99_s, bound_s, ratio(p99_s, bound_s)
        )

    def _own_x_bound(self, run: ModeRun) -> dict[int, float]:
        if not self.scenario.arrivals.poisson_per_s and not self.scenario.arrivals.joiners:
            return {}
        ratios = {}
        for node in run.nodes:
            if node.completed_s is not None:
                found = ratio(node.completed_s - node.asked_s, self.limits.node_s[node.node])
                if found is not None:
                    ratios[node.node] = found
        return ratios


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """The value that this part of them does not exceed; `ordered` is ascending. None where there are none."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


def ratio(value: float | None, unit: float | None) -> float | None:
    """None where either is unknown or there is nothing to compare to."""
    return value / unit if value is not None and unit is not None and 0.0 < unit < math.inf else None
