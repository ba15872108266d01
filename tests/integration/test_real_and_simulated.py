"""Scenarios, simulated and real: what the simulator says of nodes on shaped links, real nodes must take as well.

The simulator is told what was measured, and nothing that was fitted: the links' rates are the goodput of one plain TCP
flow, and a new connection costs the two round trips that it does in the product. Where control shares the links, its
round trip is the mean time to the answer of a question without payload between two nodes during the real run, through
the same full queues as every request and report, for the simulator knows one round trip; else the simulator's own.
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
from benchmarks.scenario import Control, Scenario, equal_links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation
from peer.transport.wire import nonce_path
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.client("docker-registry", "ip", "tc"), pytest.mark.root, pytest.mark.measured]

# TCP's own connection, then the nonce that tickets are bound to (peer.transport.pool).
CONNECT_ROUND_TRIPS: Final = 2
# Above, a run says more about the machine than about the links.
BUSY_MAX: Final = 0.85
REAL_RUNS_MAX: Final = 3
SEEDS: Final = range(1, 6)
PROBE_EVERY_S: Final = 0.1
# The first and the last pieces pass empty queues.
PROBED_PARTS: Final = (0.05, 0.95)
PROBE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Point:
    """What is compared, and how much of the simulated makespan the two may be apart."""

    scenario: Scenario
    control: Control
    frame_bytes: int
    tolerance: float


# At these rates two cores that do nothing else are 50 to 75 % busy.
POINTS: Final = {
    "20 nodes, pieces of 520 ms": Point(equal_links(20, (8 * MIB,), 500_000.0), "shared", 1500, 0.10),
    "10 nodes, pieces of 105 ms": Point(equal_links(10, (32 * MIB,), 2_500_000.0), "own", 9000, 0.05),
    "4 nodes, pieces of 21 ms": Point(equal_links(4, (64 * MIB,), 12_500_000.0), "own", 9000, 0.05),
}


@dataclass(frozen=True, slots=True)
class Real:
    """A real run: seconds to the last node's last byte, the mean round trip during it where control shares the links,
    and how busy all cores were.
    """

    makespan_s: float
    round_trip_s: float | None
    busy: float


@contextlib.contextmanager
def staged(point: Point, tmp_path: Path) -> Iterator[tuple[Stage, Network, float]]:
    """Links and origin of the scenario, and the part of their rates that one plain TCP flow gets."""
    scenario = point.scenario
    # What carries this process's name is removed by the next fan-out should this one be killed.
    name = str(RunName.own())
    space = find_disk_space(scenario.nodes, scenario.size_bytes, tmp_path, None)
    with contextlib.ExitStack() as stack:
        stores, state = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=name, dir=folder)))
            for folder in (space.folder, "/run")
        )
        network = stack.enter_context(Network(scenario, point.control, point.frame_bytes, state))
        rate = scenario.origin_bytes_s
        part = goodput(network.origin, network.nodes[0], rate, point.frame_bytes).measured
        place = network.origin
        origin = stack.enter_context(CountedOrigin(tmp_path, host=place.host, netns=place.netns))
        image = give(origin, tmp_path / "image", scenario.blobs, scenario.seed)
        asked = Plan(
            scenario=scenario,
            modes=("scheduled",),
            control=point.control,
            frame_bytes=point.frame_bytes,
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
    round_trips = RoundTrips(network, scenario.nodes * scenario.size_bytes)
    with round_trips if stage.plan.control == "shared" else contextlib.nullcontext():
        outcome = run_mode(stage, "scheduled")
    assert outcome.problems == ()
    completed_s = [node.completed_s for node in outcome.run.nodes if node.completed_s is not None]
    assert len(completed_s) == scenario.nodes
    assert outcome.run.cpu_busy is not None
    times_s = round_trips.times_s
    return Real(max(completed_s), statistics.mean(times_s) if times_s else None, outcome.run.cpu_busy)


def simulated_s(scenario: Scenario, part: float, round_trip_s: float | None) -> float:
    """The median of some seeds, for what chance alone does is no difference between the two."""
    (nodes,) = scenario.classes
    measured = replace(
        scenario,
        classes=(replace(nodes, up_bytes_s=nodes.up_bytes_s * part, down_bytes_s=nodes.down_bytes_s * part),),
        origin_bytes_s=scenario.origin_bytes_s * part,
        supernode_bytes_s=scenario.supernode_bytes_s * part,
    )
    settings = SimulationSettings(connect_round_trips=CONNECT_ROUND_TRIPS)
    if round_trip_s is not None:
        settings = replace(settings, round_trip_s=round_trip_s)
    return statistics.median(Simulation(replace(measured, seed=seed), settings).run().completed_s[-1] for seed in SEEDS)


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_a_real_run_takes_as_long_as_the_simulator_says(point: Point, tmp_path: Path) -> None:
    ratios: list[float] = []
    too_busy: list[str] = []
    with staged(point, tmp_path) as (stage, network, part):
        for number in itertools.count():
            folder = tmp_path / f"run-{number}"
            folder.mkdir()
            real = real_run(replace(stage, folder=folder), network)
            expected_s = simulated_s(point.scenario, part, real.round_trip_s)
            print(
                f"real {real.makespan_s:.2f} s, simulated {expected_s:.2f} s, {real.makespan_s / expected_s:.3f}; "
                f"goodput {part:.4f}, round trip {real.round_trip_s}, cores {real.busy:.0%} busy"
            )
            if real.busy > BUSY_MAX:
                too_busy.append(f"{real.busy:.0%}")
                if len(too_busy) > 1:
                    pytest.skip(f"no evidence: all cores were {' and '.join(too_busy)} busy, of {os.cpu_count()}")
                continue
            ratios.append(real.makespan_s / expected_s)
            # One run that agrees is enough; where it does not, noise gets two more, and the median counts.
            if abs(ratios[0] - 1.0) <= point.tolerance or len(ratios) == REAL_RUNS_MAX:
                break
    assert abs(statistics.median(ratios) - 1.0) <= point.tolerance, f"real over simulated: {ratios}"
