"""The physical limits of a Scenario: pure formulas over links and sizes. It runs, measures and shows nothing.

Sources: Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time" (2006), for fluids; Mundinger,
Weber and Weiss, "Optimal Scheduling of Peer-to-Peer File Dissemination" (2008), for whole pieces. Times are seconds
from the first request on, rates bytes/s. Latency counts nothing, but for the origin's time to its first byte: whatever
is done, nobody has a byte before.

Every bound is over the sound nodes that ask while the blobs are distributed: not over those that are slow, corrupt or
leave, which can help as long as they are there (the corrupt not at all), nor over joiners, who wait for the others.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.scenario import Fate, NodeClass, Scenario


@dataclass(frozen=True, slots=True)
class Links:
    """The goodputs that bounds are computed with; infinite where nothing limits. Up and down of each class's nodes."""

    origin_bytes_s: float
    supernode_bytes_s: float
    classes: dict[str, tuple[float, float]]
    # Each way; None without racks.
    trunk_bytes_s: float | None

    @property
    def inbound_bytes_s(self) -> float:
        """From the origin to the supernode, by which everything comes but in native mode."""
        return min(self.origin_bytes_s, self.supernode_bytes_s)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in seconds that no schedule can beat; `torrent_s` alone is an expectation. See the functions beside."""

    links: Links
    # Of one plain TCP flow, as a part of its link's nominal rate.
    goodput: float
    fluid_s: float
    piece_s: float
    native_s: float
    # What a transport that needs the whole blob before its first piece comes to.
    torrent_s: float
    # The part of the fluid bound that is due to uplinks while their nodes are there.
    live_fluid_s: float
    # The racks' part of the fluid bound, and the least payload over trunks into racks; None without racks.
    racks_s: float | None
    cross_rack_bytes: int | None
    # F over the downlink of each class.
    class_s: dict[str, float]
    # From its own request, of each node, joiners too.
    node_s: tuple[float, ...]

    @property
    def reduction_vs_native(self) -> float | None:
        """The most that any schedule can save of native's time, as a part of it."""
        return 1.0 - self.fluid_s / self.native_s if self.native_s > 0.0 else None


@dataclass(frozen=True, slots=True)
class _Supply:
    """Upload of one sender, while it is there."""

    bytes_s: float
    from_s: float = 0.0
    to_s: float = math.inf


@dataclass(frozen=True, slots=True)
class _Node:
    """One node as the formulas see it."""

    up_bytes_s: float
    down_bytes_s: float
    asks_s: float
    rack: int | None
    fate: Fate

    def supplies(self, from_s: float) -> Iterable[_Supply]:
        """What it can send, from its own request or `from_s` on, whichever is later."""
        if self.fate.corrupt:
            return
        begins_s = max(self.asks_s, from_s)
        leaves_s, returns_s = self.fate.leaves_s, self.fate.returns_s
        if leaves_s is None:
            yield _Supply(self.up_bytes_s, begins_s)
            return
        yield _Supply(self.up_bytes_s, begins_s, leaves_s)
        if returns_s is not None:
            yield _Supply(self.up_bytes_s, max(begins_s, returns_s))


@dataclass(frozen=True, slots=True)
class _Case:
    """A scenario with its goodputs: `nodes` ask during the distribution, `needing` of them must be complete."""

    size_bytes: float
    links: Links
    first_byte_s: float
    nodes: Sequence[_Node]
    needing: Sequence[_Node]


def bounds(scenario: Scenario, goodput: float = 1.0) -> Bounds:
    """All limits of the scenario, whose links carry that part of their rates. Raises ConfigError if it is nothing."""
    if not goodput > 0.0:
        raise ConfigError(f"goodput {goodput:g}: it must be positive")
    links = _links(scenario, goodput)
    case = _case(scenario, links)
    lengths = _piece_lengths(scenario)
    fluid_s = _fluid_s(case, case.size_bytes)
    racks = {node.rack for node in case.needing} - {None}
    return Bounds(
        links=links,
        goodput=goodput,
        fluid_s=fluid_s,
        piece_s=max(fluid_s, _piece_s(case, lengths)),
        native_s=_native_s(case),
        torrent_s=_torrent_s(case, scenario.blobs),
        live_fluid_s=_uplinks_s(case, case.size_bytes, case.first_byte_s),
        racks_s=_racks_s(case, case.size_bytes, case.first_byte_s) if racks else None,
        cross_rack_bytes=len(racks) * scenario.size_bytes if racks else None,
        class_s={name: case.size_bytes / down for name, (_, down) in links.classes.items()},
        node_s=_node_s(scenario, case),
    )


def _links(scenario: Scenario, goodput: float) -> Links:
    def carries(rate_bytes_s: float) -> float:
        return rate_bytes_s * goodput if rate_bytes_s else math.inf

    return Links(
        origin_bytes_s=carries(scenario.origin_bytes_s),
        supernode_bytes_s=carries(scenario.supernode_bytes_s),
        classes={one.name: (carries(one.up_bytes_s), carries(one.down_bytes_s)) for one in scenario.classes},
        trunk_bytes_s=carries(scenario.trunk_bytes_s) if scenario.racks else None,
    )


def _case(scenario: Scenario, links: Links) -> _Case:
    fates = scenario.fates()
    nodes = []
    for number, asks_s in enumerate(scenario.arrivals_s()):
        if asks_s is None:
            continue
        up, down = _rates(scenario.class_of(number), fates[number], links, scenario)
        nodes.append(_Node(up, down, asks_s, scenario.rack_of(number), fates[number]))
    staying = [node for node in nodes if node.fate.leaves_s is None]
    sound = [node for node in staying if not node.fate.slow and not node.fate.corrupt]
    return _Case(
        size_bytes=float(scenario.size_bytes),
        links=links,
        first_byte_s=scenario.origin.first_byte_s,
        nodes=nodes,
        # Where nobody is sound, those that stay are looked at, and where nobody stays, all.
        needing=sound or staying or nodes,
    )


def _rates(of: NodeClass, fate: Fate, links: Links, scenario: Scenario) -> tuple[float, float]:
    up, down = links.classes[of.name]
    factor = scenario.faults.slow_factor if fate.slow else 1.0
    return up * factor, down * factor


def _fluid_s(case: _Case, size_bytes: float) -> float:
    """Kumar and Ross: `max(F/u_s, F/min(d_i), N*F/(u_s + sum(u_i)))`, where a node asks at a_i with `a_i + F/d_i` and
    `u_s*T + sum(u_i * max(0, T - a_i)) >= N*F`. The supernode, which needs no copy, is the source that uploads; all
    bytes come to it first, so `F/min(origin, supernode)` counts as well.
    """
    return max(
        case.first_byte_s + size_bytes / case.links.inbound_bytes_s, _spread_s(case, size_bytes, case.first_byte_s)
    )


def _spread_s(case: _Case, size_bytes: float, from_s: float) -> float:
    """The fluid bound but for the way from the origin; the supernode has what it sends from `from_s` on."""
    seed_s = from_s + size_bytes / case.links.supernode_bytes_s
    downlinks_s = max(max(node.asks_s, from_s) + size_bytes / node.down_bytes_s for node in case.needing)
    return max(seed_s, downlinks_s, _uplinks_s(case, size_bytes, from_s), _racks_s(case, size_bytes, from_s))


def _uplinks_s(case: _Case, size_bytes: float, from_s: float) -> float:
    """When all uplinks can have sent a copy to each node that needs one, each while its node is there.

    Without churn and with all requests at 0 it is `N*F/(u_s + sum(u_i))`.
    """
    supplies = [_Supply(case.links.supernode_bytes_s, from_s)]
    for node in case.nodes:
        supplies.extend(node.supplies(from_s))
    return _earliest_s(len(case.needing) * size_bytes, supplies)


def _racks_s(case: _Case, size_bytes: float, from_s: float) -> float:
    """What trunks add, 0.0 without racks. Origin and supernode are outside all R; each trunk carries t each way.

    Each rack takes F in: `F/t`. All R*F bytes of that come from the supernode or out of other racks:
    `R*F/(u_s + R*t)`. And what the N_r nodes of a rack receive comes over its trunk or from its own uplinks:
    `N_r*F/(t + sum of u_i in it)`, where nodes send while they are there.
    """
    trunk = case.links.trunk_bytes_s
    if trunk is None:
        return 0.0
    needing = Counter(node.rack for node in case.needing)
    racks = {node.rack for node in case.nodes}
    crossing = [_Supply(case.links.supernode_bytes_s, from_s), _Supply(len(racks) * trunk, from_s)]
    latest_s = max(from_s + size_bytes / trunk, _earliest_s(len(needing) * size_bytes, crossing))
    supplies = {rack: [_Supply(trunk, from_s)] for rack in needing}
    for node in case.nodes:
        if node.rack in supplies:
            supplies[node.rack].extend(node.supplies(from_s))
    return max(latest_s, *(_earliest_s(count * size_bytes, supplies[rack]) for rack, count in needing.items()))


def _piece_s(case: _Case, lengths: Mapping[int, int]) -> float:
    """Mundinger, Weber and Weiss, with the origin's hop: equal links give `(M + 1 + floor(log2 N)) * p/u`.

    Take the pieces of at least L bytes, S bytes together. The last of them is at the supernode after `S/inbound`;
    holders at most double in L over the fastest uplink, so N nodes need `1 + floor(log2 N)` such times more, and the
    slowest downlink its own. Or: the supernode begins when it holds one of them, sends each at least once (`S/u_s`),
    and after the last one `floor(log2 N)` doublings follow. The best L counts. Also nobody receives before the
    supernode holds a first piece, and no node sends before it received one itself.
    """
    links, start_s = case.links, case.first_byte_s
    fastest = max(links.supernode_bytes_s, *(node.up_bytes_s for node in case.nodes))
    slowest_down = min(node.down_bytes_s for node in case.needing)
    doublings = math.floor(math.log2(len(case.needing)))
    latest_s = _first_piece_s(case, min(lengths))
    sums = accumulate(length * lengths[length] for length in sorted(lengths, reverse=True))
    for length, sum_bytes in zip(sorted(lengths, reverse=True), sums, strict=True):
        hop_s = length / fastest
        after_origin_s = sum_bytes / links.inbound_bytes_s + max((1 + doublings) * hop_s, length / slowest_down)
        after_seed_s = length / links.inbound_bytes_s + sum_bytes / links.supernode_bytes_s + doublings * hop_s
        latest_s = max(latest_s, start_s + after_origin_s, start_s + after_seed_s)
    return latest_s


def _first_piece_s(case: _Case, shortest_bytes: int) -> float:
    """The fluid bound of nodes that receive once a first piece is at the supernode, and send once it is at them."""
    at_seed_s = case.first_byte_s + shortest_bytes / case.links.inbound_bytes_s
    downlinks_s = max(max(node.asks_s, at_seed_s) + case.size_bytes / node.down_bytes_s for node in case.needing)
    supplies = [_Supply(case.links.supernode_bytes_s, at_seed_s)]
    for node in case.nodes:
        supplies.extend(node.supplies(max(node.asks_s, at_seed_s) + shortest_bytes / node.down_bytes_s))
    return max(downlinks_s, _earliest_s(len(case.needing) * case.size_bytes, supplies))


def _native_s(case: _Case) -> float:
    """Without peers: `max(N*F/u_origin, F/min(d_i))`, over a rack's trunk `N_r*F/t`.

    Where requests are spread, the n nodes that ask last need `n*F/u_origin` from the first of their requests on.
    """
    size, links, start_s = case.size_bytes, case.links, case.first_byte_s
    asks_s = sorted(node.asks_s for node in case.needing)
    count = len(asks_s)
    origin_s = max(at_s + start_s + (count - rank) * size / links.origin_bytes_s for rank, at_s in enumerate(asks_s))
    downlinks_s = max(node.asks_s + start_s + size / node.down_bytes_s for node in case.needing)
    if links.trunk_bytes_s is None:
        return max(origin_s, downlinks_s)
    fullest = max(Counter(node.rack for node in case.needing).values())
    return max(origin_s, downlinks_s, start_s + fullest * size / links.trunk_bytes_s)


def _torrent_s(case: _Case, blobs: Sequence[int]) -> float:
    """Where a blob's metainfo needs all of it: `F/u + fluid` for one blob.

    Several come to the supernode in their order: the first one's time and everything's distribution, or everything's
    time and the last one's distribution, whichever is more.
    """
    first_s = case.first_byte_s + blobs[0] / case.links.inbound_bytes_s
    all_s = case.first_byte_s + case.size_bytes / case.links.inbound_bytes_s
    return max(_spread_s(case, case.size_bytes, first_s), _spread_s(case, float(blobs[-1]), all_s))


def _node_s(scenario: Scenario, case: _Case) -> tuple[float, ...]:
    """Of each node from its own request: `F/d_i`, and not before all bytes came from the origin."""
    came_s = case.first_byte_s + case.size_bytes / case.links.inbound_bytes_s
    fates = scenario.fates()
    own = []
    for number, asks_s in enumerate(scenario.arrivals_s()):
        _, down = _rates(scenario.class_of(number), fates[number], case.links, scenario)
        own_s = case.size_bytes / down
        # A joiner asks when all bytes came long ago.
        own.append(own_s if asks_s is None else max(own_s, came_s - asks_s))
    return tuple(own)


def _piece_lengths(scenario: Scenario) -> dict[int, int]:
    """How many pieces have which length in bytes, over all blobs."""
    lengths: Counter[int] = Counter()
    for blob in range(len(scenario.blobs)):
        layout = scenario.layout(blob)
        last = layout.length(layout.count - 1)
        lengths[last] += 1
        if layout.count > 1:
            lengths[layout.length(0)] += layout.count - 1
    return dict(lengths)


def _earliest_s(needed_bytes: float, supplies: Iterable[_Supply]) -> float:
    """The least T by which the supplies can have sent so much, exactly: their sum is linear between their changes."""
    changes: list[tuple[float, float]] = []
    unlimited_s = math.inf
    for supply in supplies:
        if supply.to_s <= supply.from_s:
            continue
        if math.isinf(supply.bytes_s):
            unlimited_s = min(unlimited_s, supply.from_s)
            continue
        changes.append((supply.from_s, supply.bytes_s))
        if not math.isinf(supply.to_s):
            changes.append((supply.to_s, -supply.bytes_s))
    sent_bytes, rate, now_s = 0.0, 0.0, 0.0
    for at_s, change in sorted(changes):
        if sent_bytes + rate * (at_s - now_s) >= needed_bytes:
            break
        sent_bytes += rate * (at_s - now_s)
        rate, now_s = rate + change, at_s
    return min(unlimited_s, now_s + (needed_bytes - sent_bytes) / rate if rate > 0.0 else math.inf)
