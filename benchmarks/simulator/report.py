"""A run's figures as a table and as JSON, with the real fan-out's keys; what only that can measure is left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.report import machine, print_table
from benchmarks.simulator.scenario import bounds
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.simulator.scenario import Scenario
    from benchmarks.simulator.world import Outcome


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed; `ordered` is ascending and not empty."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def document(outcome: Outcome) -> dict[str, object]:
    """The JSON document. Times in seconds, rates in bytes/s."""
    scenario = outcome.scenario
    limits = bounds(scenario)
    return {
        "nodes": scenario.nodes,
        "size_bytes": scenario.size_bytes,
        "pieces": scenario.layout.count,
        "links": {
            "node_bytes_s": scenario.rate_bytes_s,
            "origin_bytes_s": scenario.origin_rate_bytes_s,
            "supernode_bytes_s": scenario.supernode_rate_bytes_s,
            "round_trip_s": scenario.round_trip_s,
            "declared": scenario.declared,
            "sharing": "exact" if scenario.nodes <= scenario.exact_nodes_max else "local",
        },
        "bounds": {"fluid_s": limits.fluid_s, "piece_s": limits.piece_s},
        "modes": {"scheduled": _mode(outcome, limits.fluid_s, limits.piece_s)},
        "simulation": {
            "seed": scenario.seed,
            "piece_size_bytes": scenario.piece_size_bytes,
            "service_s": scenario.service_s,
            "hash_s": scenario.hash_s,
            "slots": scenario.slots,
            "trace_sha256": outcome.trace_hash,
            "trace_entries": outcome.trace_entries,
            "wall_s": outcome.wall_s,
            "first_copies_s": outcome.first_copies_s,
            "scheduler": outcome.counters,
            "machine": machine(),
        },
    }


def _mode(outcome: Outcome, fluid_s: float, piece_s: float) -> dict[str, object]:
    completed, first = outcome.completed_s, outcome.first_byte_s
    makespan_s = completed[-1] if completed else None
    return {
        "makespan_s": makespan_s,
        "p50_s": quantile(completed, 0.5) if completed else None,
        "p99_s": quantile(completed, 0.99) if completed else None,
        "p1_s": quantile(completed, 0.01) if completed else None,
        "first_byte_p50_s": quantile(first, 0.5) if first else None,
        "origin_bytes": outcome.origin_bytes,
        "origin_ranges": outcome.origin_ranges,
        "seed_bytes": outcome.seed_sent_bytes,
        "peer_bytes": outcome.peers_sent_bytes,
        "x_fluid": makespan_s / fluid_s if makespan_s else None,
        "x_piece": makespan_s / piece_s if makespan_s else None,
        "errors": len(outcome.incomplete),
    }


def print_report(outcome: Outcome) -> None:
    """Assumptions first, for a ratio means nothing without them."""
    scenario = outcome.scenario
    limits = bounds(scenario)
    size = float(scenario.size_bytes)
    rows = [(name, _seconds(bound_s), "1.000") for name, bound_s in (("fluid bound", limits.fluid_s),)]
    rows.append(
        ("piece bound, with the origin's hop", _seconds(limits.piece_s), _ratio(limits.piece_s, limits.fluid_s))
    )
    named = [("last node", 1.0), ("p99", 0.99), ("p50", 0.5), ("p1", 0.01)]
    for name, part in named:
        at_s = quantile(outcome.completed_s, part)
        rows.append((name, _seconds(at_s), _ratio(at_s, limits.fluid_s)))
    copies_s = outcome.first_copies_s
    rows.append(("every piece at a peer once", _seconds(copies_s), _ratio(copies_s, limits.fluid_s)))
    rows.append(("first byte, p50", _seconds(quantile(outcome.first_byte_s, 0.5)), ""))
    print(_assumptions(scenario))
    print_table("scheduled", ("", "time", "x fluid"), rows)
    print(f"last node / piece bound: {outcome.completed_s[-1] / limits.piece_s:.4f}")
    print(
        f"origin sent {outcome.origin_bytes / size:.3f} x the blob in {outcome.origin_ranges} range(s), the supernode"
        f" {outcome.seed_sent_bytes / size:.2f} x, the peers {outcome.peers_sent_bytes / size:.2f} x"
    )
    entries, wall_s = outcome.trace_entries, outcome.wall_s
    print(f"seed {scenario.seed}, trace {outcome.trace_hash[:16]} of {entries} entries, {wall_s:.1f} s of computing")


def _assumptions(scenario: Scenario) -> str:
    sharing = "exact" if scenario.nodes <= scenario.exact_nodes_max else "local share"
    return (
        f"{scenario.nodes} nodes, {scenario.size_bytes / MIB:g} MiB in {scenario.layout.count} pieces of"
        f" {scenario.piece_size_bytes / MIB:g} MiB\n"
        f"links: node {_rate(scenario.rate_bytes_s)}, origin {_rate(scenario.origin_rate_bytes_s)}, supernode"
        f" {_rate(scenario.supernode_rate_bytes_s)}, {'declared' if scenario.declared else 'not declared'};"
        f" sharing {sharing}\n"
        f"{scenario.round_trip_s * 1e3:g} ms round trip, {scenario.service_s * 1e6:g} us of supernode service an event,"
        f" {scenario.hash_s * 1e3:g} ms to a piece's hash, {scenario.slots} upload slots"
    )


def _seconds(value: float) -> str:
    return f"{value:.4f} s"


def _ratio(value: float, unit: float) -> str:
    return f"{value / unit:.3f}"


def _rate(bytes_s: float) -> str:
    return f"{bytes_s * 8 / 1e6:g} Mbit/s"
