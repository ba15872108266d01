"""One Scenario, simulated and real: what the simulator says of 20 nodes on shaped links, real nodes must take as well.

The simulator is told what was measured, and nothing that was fitted: the links' rates are the goodput of one plain TCP
flow, its round trip is the mean time to the answer of a question without payload between two nodes during the real run,
through the same full queues as every request and report (control shares the links here, for the simulator knows one
round trip), and a new connection costs the two round trips that it does in the product.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.bounds import bounds
from benchmarks.cluster.cleanup import RunName
from benchmarks.cluster.namespaces import inside
from benchmarks.cluster.origin import CountedOrigin
from benchmarks.fanout.calibration import goodput
from benchmarks.fanout.disk_space import find_disk_space
from benchmarks.fanout.modes import Stage, give, run_mode
from benchmarks.fanout.network import Network
from benchmarks.fanout.nodes import UPLOAD_PORT
from benchmarks.fanout.plan import Plan
from benchmarks.report import Outputs
from benchmarks.scenario import Scenario, equal_links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation
from peer.transport.wire import nonce_path
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.client("docker-registry", "ip", "tc"), pytest.mark.root, pytest.mark.measured]

FRAME_BYTES: Final = 1500
# 32 pieces; at this rate two cores that do nothing else are about half busy.
SCENARIO: Final = equal_links(20, (8 * MIB,), 500_000.0)
# TCP's own connection, then the nonce that tickets are bound to (peer.transport.pool).
CONNECT_ROUND_TRIPS: Final = 2
# Of the simulated makespan.
TOLERANCE: Final = 0.10
# Above, a run says more about the machine than about the links.
BUSY_MAX: Final = 0.85
REAL_RUNS_MAX: Final = 3
SEEDS: Final = range(1, 6)
PROBE_EVERY_S: Final = 0.1
# The first and the last pieces pass empty queues.
PROBED_PARTS: Final = (0.05, 0.95)
PROBE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Real:
    """A real run: seconds to the last node's last byte, the mean round trip during it, and how busy all cores were."""

    makespan_s: float
    round_trip_s: float
    busy: float


@contextlib.contextmanager
def staged(scenario: Scenario, tmp_path: Path) -> Iterator[tuple[Stage, Network, float]]:
    """Links and origin of the scenario, and the part of their rates that one plain TCP flow gets."""
    # What carries this process's name is removed by the next fan-out should this one be killed.
    name = str(RunName.own())
    space = find_disk_space(scenario.nodes, scenario.size_bytes, tmp_path, None)
    with contextlib.ExitStack() as stack:
        stores, state = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=name, dir=folder)))
            for folder in (space.folder, "/run")
        )
        network = stack.enter_context(Network(scenario, "shared", FRAME_BYTES, state))
        rate = scenario.origin_bytes_s
        part = goodput(network.origin, network.nodes[0], rate, FRAME_BYTES).measured
        place = network.origin
        origin = stack.enter_context(CountedOrigin(tmp_path, host=place.host, netns=place.netns))
        image = give(origin, tmp_path / "image", scenario.blobs, scenario.seed)
        asked = Plan(
            scenario=scenario,
            modes=("scheduled",),
            control="shared",
            frame_bytes=FRAME_BYTES,
            shaped=True,
            calibrated=True,
            native_limit_s=0.0,
            max_x_piece=None,
            trouble=None,
            store_dir=None,
            outputs=Outputs(),
            logs_dir=None,
            event_log=None,
        )
        yield Stage(asked, bounds(scenario, part), network, origin, image, tmp_path, stores), network, part


class RoundTrips:
    """Has nodes ask each other now and then, over the links that carry the pieces; a context manager."""

    def __init__(self, network: Network, payload_bytes: int) -> None:
        self._network = network
        self._payload_bytes = payload_bytes
        self._before_bytes = network.traffic().nodes_received_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="round trips")
        self.times_s: list[float] = []

    def __enter__(self) -> RoundTrips:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _probe(self) -> None:
        rng = random.Random("round trips")
        while not self._ended.wait(PROBE_EVERY_S):
            received = self._network.traffic().nodes_received_bytes - self._before_bytes
            if PROBED_PARTS[0] < received / self._payload_bytes < PROBED_PARTS[1]:
                here, there = rng.sample(self._network.nodes, 2)
                self.times_s.append(inside(here.netns, partial(answer_s, there.host)))


def answer_s(host: str) -> float:
    """Seconds from the smallest question that there is to its answer, over an open connection. Raises OSError."""
    connection = http.client.HTTPConnection(host, UPLOAD_PORT, timeout=PROBE_TIMEOUT_S)
    try:
        connection.connect()
        began_s = time.monotonic()
        connection.request("GET", nonce_path())
        connection.getresponse().read()
        return time.monotonic() - began_s
    finally:
        connection.close()


def real_run(stage: Stage, network: Network) -> Real:
    scenario = stage.scenario
    with RoundTrips(network, scenario.nodes * scenario.size_bytes) as round_trips:
        outcome = run_mode(stage, "scheduled")
    assert outcome.problems == ()
    completed_s = [node.completed_s for node in outcome.run.nodes if node.completed_s is not None]
    assert len(completed_s) == scenario.nodes
    assert outcome.run.cpu_busy is not None
    return Real(max(completed_s), statistics.mean(round_trips.times_s), outcome.run.cpu_busy)


def simulated_s(scenario: Scenario, part: float, round_trip_s: float) -> float:
    """The median of some seeds, for what chance alone does is no difference between the two."""
    (nodes,) = scenario.classes
    measured = replace(
        scenario,
        classes=(replace(nodes, up_bytes_s=nodes.up_bytes_s * part, down_bytes_s=nodes.down_bytes_s * part),),
        origin_bytes_s=scenario.origin_bytes_s * part,
        supernode_bytes_s=scenario.supernode_bytes_s * part,
    )
    settings = SimulationSettings(round_trip_s=round_trip_s, connect_round_trips=CONNECT_ROUND_TRIPS)
    return statistics.median(Simulation(replace(measured, seed=seed), settings).run().completed_s[-1] for seed in SEEDS)


def test_a_real_run_takes_as_long_as_the_simulator_says(tmp_path: Path) -> None:
    ratios: list[float] = []
    too_busy: list[str] = []
    with staged(SCENARIO, tmp_path) as (stage, network, part):
        for number in itertools.count():
            folder = tmp_path / f"run-{number}"
            folder.mkdir()
            real = real_run(replace(stage, folder=folder), network)
            expected_s = simulated_s(SCENARIO, part, real.round_trip_s)
            print(
                f"real {real.makespan_s:.2f} s, simulated {expected_s:.2f} s, {real.makespan_s / expected_s:.3f}; "
                f"goodput {part:.4f}, round trip {real.round_trip_s * 1000:.1f} ms, cores {real.busy:.0%} busy"
            )
            if real.busy > BUSY_MAX:
                too_busy.append(f"{real.busy:.0%}")
                if len(too_busy) > 1:
                    pytest.skip(f"no evidence: all cores were {' and '.join(too_busy)} busy, of {os.cpu_count()}")
                continue
            ratios.append(real.makespan_s / expected_s)
            # One run that agrees is enough; where it does not, noise gets two more, and the median counts.
            if abs(ratios[0] - 1.0) <= TOLERANCE or len(ratios) == REAL_RUNS_MAX:
                break
    assert abs(statistics.median(ratios) - 1.0) <= TOLERANCE, f"real over simulated: {ratios}"
