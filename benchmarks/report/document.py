"""A scenario's runs as one JSON document, with the same keys for real and simulated ones, and the machine's own."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.summary import Summary, summaries
from proto.errors import LocalError

if TYPE_CHECKING:
    from benchmarks.bounds import Bounds
    from benchmarks.results import ModeRun
    from benchmarks.scenario import Scenario

_CPUINFO = Path("/proc/cpuinfo")


def document(
    scenario: Scenario,
    limits: Bounds,
    runs: Sequence[ModeRun],
    *,
    links: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Times in seconds, rates in bytes/s; null is what a run cannot give, or an unlimited rate.

    `links` adds what one kind of run knows of them (its round trip), `more` sections of one kind alone; a mode's own
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


def machine() -> dict[str, object]:
    """What a reader must know of the machine to compare figures."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "sha_instructions": "sha_ni" in fields.get("flags", "").split(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Pretty-printed, keys as given. Raises LocalError."""
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise LocalError(f"--json {path}: {error.strerror}") from None


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
        "goodputs": {
            **asdict(goodputs),
            "classes": {
                name: {"up_bytes_s": up, "down_bytes_s": down} for name, (up, down) in goodputs.classes.items()
            },
        },
    }


def _bounds(limits: Bounds) -> dict[str, object]:
    return {
        **_but(asdict(limits), "links", "class_s", "node_s"),
        "classes": limits.class_s,
        "reduction_vs_native": limits.reduction_vs_native,
    }


def _mode(one: Summary) -> dict[str, object]:
    own = [each.x_bound for each in one.own if each.x_bound is not None]
    return {
        **_but(asdict(one.run), "mode", "nodes", "samples", "more"),
        **_but(asdict(one), "run"),
        "own_x_bound_max": max(own, default=None),
        **one.run.more,
    }


def _but(fields: Mapping[str, object], *names: str) -> dict[str, object]:
    """The fields that the document has not in another place or under another name."""
    return {key: value for key, value in fields.items() if key not in names}


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
