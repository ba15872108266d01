"""What the web console shows of a cluster at a time, as JSON. It reads what others keep, and decides nothing.

Its cost is bounded: so many swarms, members and nodes are looked at, the rest is counted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

from supernode.console.bound import least_s
from supernode.console.piece_map import piece_map
from supernode.console.summary import node_row, quarantine_rows, swarm_row, trouble_of, unreached_rows
from supernode.control.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proto.config.values import Price
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_registry import SwarmRegistry

SWARMS_MAX: Final = 50
NODES_MAX: Final = 500
ZONES_MAX: Final = 24
# Of all swarms that are shown together; a look at one takes about a microsecond.
MEMBERS_MAX: Final = 20_000
# A rate is since the look before, if that was no longer ago.
RATE_OVER_MAX_S: Final = 15.0
_GB: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class View:
    """What a snapshot is made from. `upstreams` gives a row for each upstream by its host."""

    nodes: NodeRegistry
    swarms: SwarmRegistry
    seed_reach: SeedReach
    copies: Callable[[int], list[int]]
    link_speeds: Callable[[int], tuple[float, float]]
    uplink_rate: Callable[[], float]
    upstreams: Callable[[], Mapping[str, dict[str, Any]]]
    problem: Callable[[], str]
    epoch: int
    started_s: float
    membership: str
    price: Price | None
    # The newest last.
    jobs: Callable[[], list[dict[str, Any]]]
    # How those of registries stand, and the rules by which they are taken: see api.events.
    events: Callable[[], dict[str, Any]]
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Before:
    """What the look before saw."""

    at_s: float
    total: Traffic
    received: dict[int, int] = field(default_factory=dict)


class Snapshots:
    """Makes one after the other; rates are since the one before."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._before: _Before | None = None

    def make(self) -> bytes:
        """JSON, in UTF-8 and on one line."""
        view, now_s = self._view, self._view.clock()
        before = self._before
        if before is not None and not 0.0 < now_s - before.at_s <= RATE_OVER_MAX_S:
            before = None
        total = view.swarms.traffic
        after = self._before = _Before(now_s, Traffic(total.origin, total.supernode, total.nodes, total.own))
        document = {
            "unix_s": round(time.time(), 3),
            "ready": not view.problem(),
            "problem": view.problem(),
            "membership": view.membership,
            "epoch": view.epoch,
            "uptime_s": round(now_s - view.started_s, 1),
            "sessions": len(view.nodes),
            "swarms_open": len(view.swarms),
            "traffic": self._traffic(total, before, now_s),
            "quarantined": quarantine_rows(view.nodes, now_s),
            "seed_unreachable": unreached_rows(view.seed_reach, now_s),
            "upstreams": [{"host": host, **row} for host, row in sorted(view.upstreams().items())],
            "jobs": view.jobs(),
            "events": view.events(),
            "nodes": self._nodes(),
            "swarms": self._swarms(now_s, before, after),
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def _traffic(self, total: Traffic, before: _Before | None, now_s: float) -> dict[str, Any]:
        price = self._view.price
        return {
            **_bytes(total),
            "origin_bytes_s": _rate(total.origin, before.total.origin if before else None, before, now_s),
            "came_bytes_s": _rate(total.received, before.total.received if before else None, before, now_s),
            "saved_bytes": total.saved,
            "saved_money": None if price is None else round(total.saved / _GB * price.per_gb, 2),
            "currency": "" if price is None else price.currency,
        }

    def _nodes(self) -> list[dict[str, Any]]:
        """The first NODES_MAX, those that something is wrong with before others."""
        view = self._view
        quarantined = view.nodes.quarantined
        sessions = list(view.nodes)
        if len(sessions) > NODES_MAX:
            sessions.sort(key=lambda session: not trouble_of(session, quarantined, view.seed_reach))
        return [node_row(session, quarantined, view.seed_reach) for session in sessions[:NODES_MAX]]

    # --- swarms --------------------------------------------------------------------------------------------------

    def _swarms(self, now_s: float, before: _Before | None, after: _Before) -> list[dict[str, Any]]:
        """Those that most nodes wait for, then the newest; in the order in which they were opened."""
        chosen = nlargest(SWARMS_MAX, self._view.swarms, key=lambda swarm: (swarm.wanted_by, swarm.number))
        rows, members_left = [], MEMBERS_MAX
        zones = {session.node: session.info.zone for session in self._view.nodes}
        for swarm in chosen:
            row = swarm_row(swarm)
            row["number"] = swarm.number
            row["upstream"] = swarm.upstream
            row["bytes"] = _bytes(swarm.traffic)
            received = after.received[swarm.number] = swarm.traffic.received
            row["came_bytes_s"] = _rate(received, before.received.get(swarm.number) if before else None, before, now_s)
            members_left -= len(swarm.members)
            if members_left >= 0:
                row.update(self._details(swarm, zones, now_s))
            rows.append(row)
        return sorted(rows, key=lambda row: row["number"])

    def _details(self, swarm: OpenSwarm, zones: Mapping[int, str], now_s: float) -> dict[str, Any]:
        """What takes a look at each member."""
        full, count = swarm.layout.full_mask, swarm.layout.count
        members, whole, missing = Counter[str](), Counter[str](), 0
        for node, member in swarm.members.items():
            zone = zones.get(node, "")
            members[zone] += 1
            held = member.held | member.unproven
            if held == full:
                whole[zone] += 1
            elif member.wanted:
                missing += count - held.bit_count()
        shown = [[zone, number, whole[zone]] for zone, number in members.most_common(ZONES_MAX)]
        return {
            "map": piece_map(self._view.copies(swarm.number), len(swarm.members)),
            "zones": sorted(shown),
            "zones_more": len(members) - len(shown),
            "whole": whole.total(),
            **self._progress(swarm, missing * swarm.layout.piece_size_bytes, now_s),
        }

    def _progress(self, swarm: OpenSwarm, missing_bytes: int, now_s: float) -> dict[str, Any]:
        """Since somebody waits for it: how much of what was wanted came, in how long, and the least it takes."""
        demand = swarm.demand
        if demand is None:
            return {"progress": None, "elapsed_s": None, "bound_s": None}
        received = swarm.traffic.received - demand.received_before
        due = received + missing_bytes
        end_s = now_s if swarm.wanted_by else max(demand.began_s, swarm.moved_s)
        seed = self._view.uplink_rate()
        speeds = [self._view.link_speeds(node) for node in swarm.members]
        bound = least_s(
            due,
            swarm.layout.size_bytes,
            [seed, *(up for up, _ in speeds)],
            [down for _, down in speeds],
            seed_alone=seed if demand.cold else 0.0,
        )
        return {
            "progress": round(received / due, 4) if due else None,
            "elapsed_s": round(end_s - demand.began_s, 2),
            "bound_s": None if bound is None else round(bound, 3),
        }


def _bytes(traffic: Traffic) -> dict[str, int]:
    return {
        "origin": traffic.origin,
        "supernode": traffic.supernode,
        "nodes": traffic.nodes,
        "own": traffic.own,
    }


def _rate(after: int, earlier: int | None, before: _Before | None, now_s: float) -> float | None:
    """Bytes/s; None where there was no look before."""
    if before is None or earlier is None:
        return None
    return round(max(0, after - earlier) / (now_s - before.at_s))
