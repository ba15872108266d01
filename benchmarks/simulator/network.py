"""The links of a scenario: each node's two, the rack trunks, the origin's; which of them lie between two nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.links import Links

if TYPE_CHECKING:
    from benchmarks.scenario import Scenario
    from benchmarks.simulator.clock import Clock
    from benchmarks.simulator.settings import SimulationSettings

# What "nothing limits them" comes to: far above any other link, and still a number that rates can be divided from.
UNLIMITED_BYTES_S = 1e13


class Network:
    """Nodes by number; 0 is the supernode, which is in no rack, like the origin."""

    def __init__(self, clock: Clock, scenario: Scenario, settings: SimulationSettings) -> None:
        self.links = links = Links(clock, exact=scenario.nodes <= settings.exact_nodes_max)
        self._share = settings.profile.share
        self.origin = links.add(scenario.origin_bytes_s * self._share or UNLIMITED_BYTES_S)
        self.up: list[int] = []
        self.down: list[int] = []
        self._racks: list[int | None] = [None]
        self._add(scenario.supernode_bytes_s, scenario.supernode_bytes_s)
        for node, fate in enumerate(scenario.fates()):
            links_of = scenario.class_of(node)
            factor = scenario.faults.slow_factor if fate.slow else 1.0
            self._add(links_of.up_bytes_s * factor, links_of.down_bytes_s * factor)
            self._racks.append(scenario.rack_of(node))
        trunk_bytes_s = scenario.trunk_bytes_s or UNLIMITED_BYTES_S
        self.trunks_up = [links.add(trunk_bytes_s) for _ in range(scenario.racks)]
        self.trunks_down = [links.add(trunk_bytes_s) for _ in range(scenario.racks)]

    def _add(self, up_bytes_s: float, down_bytes_s: float) -> None:
        self.up.append(self.links.add(up_bytes_s * self._share or UNLIMITED_BYTES_S))
        self.down.append(self.links.add(down_bytes_s * self._share or UNLIMITED_BYTES_S))

    def path(self, source: int, receiver: int) -> tuple[int, ...]:
        """The links that a piece passes."""
        if not self.trunks_up:
            return (self.up[source], self.down[receiver])
        return (self.up[source], *self._between(self._racks[source], self._racks[receiver]), self.down[receiver])

    def path_from_origin(self, receiver: int) -> tuple[int, ...]:
        """The links that the origin's answer passes."""
        return (self.origin, *self._between(None, self._racks[receiver]), self.down[receiver])

    def _between(self, rack: int | None, other: int | None) -> tuple[int, ...]:
        if rack == other:
            return ()
        out = () if rack is None else (self.trunks_up[rack],)
        into = () if other is None else (self.trunks_down[other],)
        return out + into

    @property
    def cross_rack_bytes(self) -> float | None:
        """What trunks carried into racks; None without racks."""
        if not self.trunks_down:
            return None
        return sum(self.links.carried_bytes[trunk] for trunk in self.trunks_down)
