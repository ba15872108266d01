"""From what a run gave to the figures a report shows: quantiles, and ratios to the bounds. It formats nothing.

Times are those of the nodes that the bounds are over (see benchmarks.bounds): the sound ones that ask while the blobs
are distributed. The others are in groups of their own. A figure is None where the run cannot give it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.results import ModeRun, NodeTimes
    from benchmarks.scenario import Scenario

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
class OwnTime:
    """One node's time from its own request against its own bound."""

    node: int
    asked_s: float
    took_s: float
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
    # Nodes that failed or are not complete, but for those that left.
    errors: int
    # Empty where all nodes are alike.
    groups: tuple[Group, ...]
    # Of complete nodes; empty where all ask at once.
    own: tuple[OwnTime, ...]


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed; `ordered` is ascending and not empty."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def ratio(value: float | None, unit: float | None) -> float | None:
    """None where either is unknown or there is nothing to compare to."""
    return value / unit if value is not None and unit is not None and 0.0 < unit < math.inf else None


def completed_s(scenario: Scenario, run: ModeRun) -> list[float]:
    """When the nodes that the bounds are over were complete, ascending; without those that are not."""
    return sorted(node.completed_s for node in _measured(scenario, run) if node.completed_s is not None)


def summaries(scenario: Scenario, limits: Bounds, runs: Sequence[ModeRun]) -> tuple[Summary, ...]:
    """Each mode's figures, in the order of `runs`."""
    native_s = None
    for run in runs:
        if run.mode == "native":
            native_s = _last(completed_s(scenario, run))
    return tuple(_summary(scenario, limits, run, native_s) for run in runs)


def _summary(scenario: Scenario, limits: Bounds, run: ModeRun, native_s: float | None) -> Summary:
    times = completed_s(scenario, run)
    makespan_s = _last(times)
    p1_s, p50_s, p99_s = (quantile(times, part) if times else None for part in (0.01, 0.5, 0.99))
    first = sorted(
        node.first_byte_s - node.asked_s for node in _measured(scenario, run) if node.first_byte_s is not None
    )
    share = ratio(makespan_s, native_s) if run.mode != "native" else None
    run_bytes = scenario.size_bytes * run.size_fraction
    least_cross = limits.cross_rack_bytes * run.size_fraction if limits.cross_rack_bytes else None
    return Summary(
        run=run,
        makespan_s=makespan_s,
        p1_s=p1_s,
        p50_s=p50_s,
        p99_s=p99_s,
        spread=_spread(times) if not scenario.arrivals.poisson_per_s else None,
        first_byte_p50_s=quantile(first, 0.5) if first else None,
        after_origin_s=_since(run.origin_first_byte_s, makespan_s),
        x_fluid=ratio(makespan_s, limits.fluid_s),
        x_piece=ratio(makespan_s, limits.piece_s),
        origin_x_size=run.origin_bytes / run_bytes,
        origin_gets_per_blob=run.origin_gets / len(scenario.blobs),
        cross_rack_x_minimum=ratio(run.cross_rack_bytes, least_cross),
        reduction_vs_native=1.0 - share if share is not None else None,
        errors=sum(bool(node.error) or (node.completed_s is None and node.fate != "left") for node in run.nodes),
        groups=_groups(scenario, limits, run),
        own=_own(scenario, limits, run),
    )


def _spread(ordered: Sequence[float]) -> float | None:
    if not ordered:
        return None
    p1_s, p50_s, p99_s = (quantile(ordered, part) for part in (0.01, 0.5, 0.99))
    return ratio(p99_s - p1_s, p50_s)


def _since(start_s: float | None, end_s: float | None) -> float | None:
    return end_s - start_s if start_s is not None and end_s is not None else None


def _last(ordered: Sequence[float]) -> float | None:
    return ordered[-1] if ordered else None


def _joiners(scenario: Scenario) -> set[int]:
    return set(range(scenario.nodes - scenario.arrivals.joiners, scenario.nodes))


def _measured(scenario: Scenario, run: ModeRun) -> Iterable[NodeTimes]:
    """The nodes that the bounds are over, chosen as benchmarks.bounds chooses them."""
    joiners = _joiners(scenario)
    nodes = [node for node in run.nodes if node.node not in joiners]
    staying = [node for node in nodes if node.fate != "left"]
    return [node for node in staying if not node.fate] or staying or nodes


def _groups(scenario: Scenario, limits: Bounds, run: ModeRun) -> tuple[Group, ...]:
    joiners = _joiners(scenario)
    members: dict[tuple[str, str], list[NodeTimes]] = {}
    for node in run.nodes:
        fate = JOINER if node.node in joiners else node.fate
        members.setdefault((node.class_name, fate), []).append(node)
    if len(members) < 2:
        return ()
    return tuple(_group(scenario, limits, *key, members[key]) for key in sorted(members))


def _group(scenario: Scenario, limits: Bounds, class_name: str, fate: str, nodes: Sequence[NodeTimes]) -> Group:
    took = sorted(node.completed_s - node.asked_s for node in nodes if node.completed_s is not None)
    bound_s = limits.class_s[class_name] / (scenario.faults.slow_factor if fate == "slow" else 1.0)
    if fate != JOINER and not scenario.arrivals.poisson_per_s:
        bound_s = max(bound_s, limits.live_fluid_s)
    p99_s = quantile(took, 0.99) if took else None
    return Group(
        class_name=class_name,
        fate=fate,
        nodes=len(nodes),
        complete=len(took),
        p50_s=quantile(took, 0.5) if took else None,
        p99_s=p99_s,
        bound_s=bound_s,
        x_bound=ratio(p99_s, bound_s),
    )


def _own(scenario: Scenario, limits: Bounds, run: ModeRun) -> tuple[OwnTime, ...]:
    if not scenario.arrivals.poisson_per_s and not scenario.arrivals.joiners:
        return ()
    own = []
    for node in run.nodes:
        if node.completed_s is not None:
            took_s, bound_s = node.completed_s - node.asked_s, limits.node_s[node.node]
            own.append(OwnTime(node.node, node.asked_s, took_s, bound_s, ratio(took_s, bound_s)))
    return tuple(own)
