"""A scenario's runs as one JSON document, with the same keys for real and simulated ones. It writes no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.report.summary import Summary, summaries
from benchmarks.report.terminal import machine

if TYPE_CHECKING:
    from benchmarks.bounds import Bounds
    from benchmarks.figures import ModeRun
    from benchmarks.scenario import Scenario


def document(
    scenario: Scenario,
    limits: Bounds,
    runs: Sequence[ModeRun],
    *,
    links: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Times in seconds, rates in bytes/s; null is what a run cannot give, or an unlimited rate.

    `links` adds what one world knows of them (its round trip), `more` sections of one world alone; a mode's own
    figures come with its run. `reduction_vs_native` is a part of native's time, of the scheduled mode where it ran.
    """
    figures = summaries(scenario, limits, runs)
    reductions = {one.run.mode: one.reduction_vs_native for one in figures}
    content: dict[str, object] = {
        "nodes": scenario.nodes,
        "size_bytes": scenario.size_bytes,
        "pieces": scenario.pieces,
        "links": {**_links(scenario, limits), **(links or {})},
        "bounds": _bounds(limits),
        "modes": {one.run.mode: _mode(one) for one in figures},
        "reduction_vs_native": reductions.get("scheduled", reductions.get("torrent")),
        "scenario": asdict(scenario),
        **(more or {}),
        "machine": machine(),
    }
    return {key: _finite(value) for key, value in content.items()}


def _links(scenario: Scenario, limits: Bounds) -> dict[str, object]:
    """What the links were set to, and the goodputs that the bounds are computed with."""
    one = scenario.classes[0]
    alike = len(scenario.classes) == 1 and one.up_bytes_s == one.down_bytes_s
    goodputs = limits.links
    return {
        # Only where all nodes have it, both ways.
        "node_bytes_s": _rate(one.up_bytes_s) if alike else None,
        "origin_bytes_s": _rate(scenario.origin_bytes_s),
        "supernode_bytes_s": _rate(scenario.supernode_bytes_s),
        "trunk_bytes_s": _rate(scenario.trunk_bytes_s) if scenario.racks else None,
        "racks": scenario.racks,
        "declared": scenario.declared,
        "classes": {
            each.name: {
                "parts": each.parts,
                "up_bytes_s": _rate(each.up_bytes_s),
                "down_bytes_s": _rate(each.down_bytes_s),
            }
            for each in scenario.classes
        },
        "goodputs": {
            "origin_bytes_s": goodputs.origin_bytes_s,
            "supernode_bytes_s": goodputs.supernode_bytes_s,
            "trunk_bytes_s": goodputs.trunk_bytes_s,
            "classes": {
                name: {"up_bytes_s": up, "down_bytes_s": down} for name, (up, down) in goodputs.classes.items()
            },
        },
    }


def _bounds(limits: Bounds) -> dict[str, object]:
    return {
        "fluid_s": limits.fluid_s,
        "piece_s": limits.piece_s,
        "native_s": limits.native_s,
        "torrent_s": limits.torrent_s,
        "live_fluid_s": limits.live_fluid_s,
        "racks_s": limits.racks_s,
        "cross_rack_bytes": limits.cross_rack_bytes,
        "classes": limits.class_s,
        "reduction_vs_native": limits.reduction_vs_native,
    }


def _mode(one: Summary) -> dict[str, object]:
    run = one.run
    own = sorted(each.x_bound for each in one.own if each.x_bound is not None)
    return {
        "makespan_s": one.makespan_s,
        "p50_s": one.p50_s,
        "p99_s": one.p99_s,
        "p1_s": one.p1_s,
        "spread": one.spread,
        "first_byte_p50_s": one.first_byte_p50_s,
        "origin_first_byte_s": run.origin_first_byte_s,
        "after_origin_s": one.after_origin_s,
        "origin_bytes": run.origin_bytes,
        "origin_gets": run.origin_gets,
        "origin_repeated_bytes": run.origin_repeated_bytes,
        "origin_x_size": one.origin_x_size,
        "origin_gets_per_blob": one.origin_gets_per_blob,
        "seed_bytes": run.supernode_sent_bytes,
        "peer_bytes": run.peers_sent_bytes,
        "x_fluid": one.x_fluid,
        "x_piece": one.x_piece,
        "cross_rack_bytes": run.cross_rack_bytes,
        "cross_rack_x_minimum": one.cross_rack_x_minimum,
        "control_bytes": run.control_bytes,
        "cpu_s_per_gib": run.cpu_s_per_gib,
        "cpu_busy": run.cpu_busy,
        "node_rss_mib": run.node_rss_mib,
        "node_peak_mib": run.node_peak_mib,
        "supernode_rss_mib": run.supernode_rss_mib,
        "errors": one.errors,
        "reduction_vs_native": one.reduction_vs_native,
        "size_fraction": run.size_fraction,
        "groups": [asdict(group) for group in one.groups],
        "own_x_bound_max": own[-1] if own else None,
        "own": [asdict(each) for each in one.own],
        **run.more,
    }


def _rate(nominal_bytes_s: float) -> float:
    return nominal_bytes_s or math.inf


def _finite(value: object) -> object:
    """JSON knows no infinity: what nothing limits is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
