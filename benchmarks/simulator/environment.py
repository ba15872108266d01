"""What every part of a simulated run stands in: clock, links, pieces on their way, origin, checkers, trace. No node.

Made first, and given to the supernode, to peers and their clients; none of these knows the simulation that holds all
of them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from benchmarks.bounds import bounds
from benchmarks.simulator.checkers import all_checkers, listeners
from benchmarks.simulator.clock import Clock
from benchmarks.simulator.names import digest_of
from benchmarks.simulator.network import Network
from benchmarks.simulator.origin import Origin
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.trace import Trace
from benchmarks.simulator.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenario import Scenario
    from benchmarks.simulator.checkers import Checker


class Environment:
    """See the module."""

    def __init__(
        self, scenario: Scenario, settings: SimulationSettings | None, checkers: Sequence[Checker] | None
    ) -> None:
        self.scenario = scenario
        self.settings = settings or SimulationSettings()
        self.bounds = bounds(scenario.pulls_alone)
        self.checkers = all_checkers() if checkers is None else checkers
        self.on_claimed = listeners(self.checkers, "claimed")
        # Index of each blob in the scenario.
        self.blobs = {digest_of(blob): blob for blob in range(len(scenario.all_blobs))}
        self.clock = Clock()
        # How long messages, threads and requests take this time.
        self.delays = random.Random(f"delays {scenario.seed}")
        self.trace = Trace()
        self.network = Network(self.clock, scenario, self.settings)
        self.links = self.network.links
        self.transport = Transport(self.clock, self.network, scenario, self.settings, self.checkers, self.delays)
        self.origin = Origin(self.clock, self.network, scenario, self.settings)
