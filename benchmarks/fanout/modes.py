"""One mode's run: starts what it needs, lets the clients pull, ends what it started, and gives the figures."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.image import make_exact_image
from benchmarks.cluster.processes import cpu_s, wait_until
from benchmarks.cluster.services import Supernode
from benchmarks.fanout.network import DATA_NETWORK, Network
from benchmarks.fanout.nodes import TORRENT_PORT, Nodes
from benchmarks.fanout.origin import OriginCost, origin_cost
from benchmarks.fanout.pulling import REPOSITORY, Pulling
from benchmarks.fanout.step_table import SUFFIX, SUPERNODE, read_steps
from benchmarks.fanout.trouble import CoreHogs, Moments, back_at_rate_s, happening
from benchmarks.fanout.usage import CoreTime, prefer
from benchmarks.fanout.watch import SOURCES, Display, Reading, Watcher, samples
from benchmarks.results import Mode, ModeRun, NodeTimes, Source
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.bounds import Bounds
    from benchmarks.cluster.image import Image
    from benchmarks.cluster.metrics import Metrics
    from benchmarks.cluster.origin import CountedOrigin
    from benchmarks.fanout.plan import Plan
    from benchmarks.fanout.site import Place, Site, Traffic
    from benchmarks.fanout.step_table import StepRow
    from benchmarks.scenario import Scenario

_GIB: Final = 1 << 30
# A run is given up after so many times its bound, and a minute.
_PATIENCE: Final = 8.0
_PATIENCE_S: Final = 60.0
_SESSIONS_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What all modes share. `folder` is for logs, `stores` for what programs keep."""

    plan: Plan
    limits: Bounds
    site: Site
    origin: CountedOrigin
    image: Image
    folder: Path
    stores: Path
    # What the report says of the links beyond rates.
    links: Mapping[str, object] = field(default_factory=dict)
    # What goes on at that supernode while clients pull through it.
    meanwhile: Callable[[Supernode], AbstractContextManager[object]] = contextlib.nullcontext

    @property
    def scenario(self) -> Scenario:
        """That of the plan."""
        return self.plan.scenario


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's figures, and what was wrong with it, a line each."""

    run: ModeRun
    problems: tuple[str, ...]
    # What a piece cost, step by step, where that was asked for.
    steps: list[StepRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Between the barrier and the last client's end."""

    nodes: tuple[NodeTimes, ...]
    readings: list[Reading]
    busy: float
    network: float
    product_cpu_s: float
    clients_cpu_s: float
    # Of the barrier, monotonic.
    began_s: float

    @property
    def completed_s(self) -> list[float]:
        """Of the clients that are complete."""
        return [one.completed_s for one in self.nodes if one.completed_s is not None]

    @property
    def problems(self) -> list[str]:
        """A line for each client that failed."""
        return [f"node {one.node}: {one.error}" for one in self.nodes if one.error]

    @property
    def traffic(self) -> Traffic | None:
        return self.readings[-1].traffic if self.readings else None


def run_mode(stage: Stage, mode: Mode) -> Outcome:
    """Run it. Raises LocalError, ProcessError where it cannot even begin."""
    with Display(mode, stage.scenario.pulls_alone.nodes) as display:
        if mode == "native":
            return _native(stage, display)
        return _product(stage, mode, display)


def give(origin: CountedOrigin, folder: Path, sizes_bytes: Sequence[int], seed: int) -> Image:
    """Push an image of layers of these sizes; its files are removed."""
    image = make_exact_image(folder, sizes_bytes, seed)
    origin.push(image, REPOSITORY, folder.name)
    shutil.rmtree(folder)
    return image


# --- native ----------------------------------------------------------------------------------------------------


def native_fraction(native_s: float, limit_s: float) -> float:
    """The part of the size that native pulls: 1.0, or what its bound allows within the limit."""
    return min(1.0, limit_s / native_s)


def _native(stage: Stage, display: Display) -> Outcome:
    scenario = stage.scenario
    wanted = native_fraction(stage.limits.native_s, stage.plan.native_limit_s)
    image, fraction = stage.image, 1.0
    if wanted < 1.0:
        display.step("filling the origin with a part of the size")
        sizes = [max(1, round(size * wanted)) for size in scenario.blobs]
        fraction = sum(sizes) / scenario.size_bytes
        image = give(stage.origin, stage.folder / "native-image", sizes, scenario.seed)
    addresses = [stage.origin.address] * scenario.nodes
    arrivals = [None if at_s is None else at_s * fraction for at_s in scenario.arrivals_s()]
    log = stage.folder / "native-clients.log"
    with Pulling(stage.site, scenario, addresses, image, log) as pulling:
        measured = _measure(stage, pulling, arrivals, stage.limits.native_s * fraction, display, lambda: 0.0)
    cost = origin_cost(stage.origin.ledger(), image)
    run = _mode_run(stage, "native", measured, cost, {"origin": cost.sent_bytes})
    if fraction < 1.0:
        run = _scaled(run, fraction)
    return Outcome(run, tuple(measured.problems))


def _scaled(run: ModeRun, fraction: float) -> ModeRun:
    """The times of the whole size, from a run of this part of it."""

    def whole(at_s: float | None) -> float | None:
        return None if at_s is None else at_s / fraction

    return replace(
        run,
        size_fraction=fraction,
        nodes=tuple(
            replace(
                one,
                asked_s=one.asked_s / fraction,
                first_byte_s=whole(one.first_byte_s),
                completed_s=whole(one.completed_s),
            )
            for one in run.nodes
        ),
        samples=tuple(replace(sample, at_s=sample.at_s / fraction) for sample in run.samples),
        origin_first_byte_s=whole(run.origin_first_byte_s),
    )


# --- through Layercast -----------------------------------------------------------------------------------------


def _product(stage: Stage, mode: Mode, display: Display) -> Outcome:
    stores = stage.stores / mode
    stores.mkdir()
    try:
        with _running(stage, mode, stores, display) as (supernode, nodes):
            outcome = _through(stage, mode, supernode, nodes, display)
        if not stage.plan.steps:
            return outcome
        pieces = stage.scenario.nodes * stage.scenario.pieces
        return replace(outcome, steps=read_steps(stage.folder / mode, pieces))
    finally:
        shutil.rmtree(stores, ignore_errors=True)


@contextlib.contextmanager
def _running(stage: Stage, mode: Mode, stores: Path, display: Display) -> Iterator[tuple[Supernode, Nodes]]:
    """Supernode and nodes of a mode, all connected."""
    scenario, site = stage.scenario, stage.site
    folder = stage.folder / mode
    folder.mkdir()
    free = ["--store-free-floor", "0"]
    supernode_flags = ["--insecure-upstream", stage.origin.address, *free, *_supernode_flags(stage, mode)]
    place = site.supernode
    supernode = Supernode(
        stores / "supernode", place.control_host, supernode_flags, netns=place.netns, upload_host=place.host
    )
    if stage.plan.steps:
        steps = folder / f"{SUPERNODE}{SUFFIX}"
        supernode.program = [sys.executable, "-m", "benchmarks.cluster.measured_supernode", steps]
    with contextlib.ExitStack() as stack:
        display.step("starting the supernode")
        stack.callback(_write_log, supernode, folder / "supernode.log")
        stack.callback(supernode.close)
        supernode.start()
        if stage.plan.shaped:
            prefer(supernode.process.pid)
        display.step(f"starting {scenario.nodes} nodes")
        flags = [*supernode.peer_flags(), "--default-upstream", f"http://{stage.origin.address}"]
        flags += ["--insecure-upstream", stage.origin.address, *free]
        measured = {"torrent": mode == "torrent", "steps": stage.plan.steps}
        nodes = stack.enter_context(Nodes(site, folder, stores, flags, **measured))
        nodes.start([_node_flags(stage, mode, node) for node in range(scenario.nodes)])
        display.step("connecting the nodes")
        wait_until(
            lambda: supernode.metrics().value("layercast_sessions_open") == scenario.nodes,
            f"{scenario.nodes} sessions at the supernode",
            _SESSIONS_TIMEOUT_S,
            every_s=0.25,
        )
        yield supernode, nodes


def _trouble_calls(stage: Stage, supernode: Supernode) -> tuple[Callable[[], None], Callable[[], None]]:
    """Begins and ends what `--trouble` asks for."""
    trouble = stage.plan.trouble
    if trouble is None or trouble.kind in ("stop", "kill"):
        kill = trouble is not None and trouble.kind == "kill"
        return supernode.kill if kill else supernode.process.pause, supernode.process.resume
    if trouble.kind == "cores":
        hogs = CoreHogs()
        return hogs.begin, hogs.end
    assert isinstance(stage.site, Network), "the plan refuses it elsewhere"
    return stage.site.cut, stage.site.mend


def _seed_bytes(supernode: Supernode) -> int | None:
    """What its own store sent; not known of one that was killed."""
    if not supernode.process.running:
        return None
    return int(supernode.metrics().value("layercast_uploaded_bytes_total"))


def _write_log(supernode: Supernode, path: Path) -> None:
    """The end of what it printed, beside the nodes' own logs."""
    path.write_text("".join(f"{line}\n" for line in supernode.process.log()))


def _supernode_flags(stage: Stage, mode: Mode) -> list[str]:
    flags = []
    if not stage.plan.shaped:
        flags += ["--upload-rate", f"{round(stage.scenario.supernode_bytes_s)}B/s"]
    else:
        # Control has addresses of its own, and nodes are seen at those.
        flags += ["--advertise-allow", str(DATA_NETWORK)]
    if mode == "torrent":
        flags += ["--transport", "torrent", *_torrent_listen(stage.site.supernode)]
    log = stage.plan.event_log
    if mode == "scheduled" and log is not None:
        flags += ["--event-log", str(log.absolute())]
    return flags


def _torrent_listen(place: Place) -> list[str]:
    return ["--torrent-listen", f"{place.host}:{TORRENT_PORT if place.netns else 0}"]


def _node_flags(stage: Stage, mode: Mode, node: int) -> list[str]:
    flags = _torrent_listen(stage.site.nodes[node]) if mode == "torrent" else []
    if not stage.plan.shaped:
        links = stage.scenario.class_of(node)
        flags += [
            "--upload-rate",
            f"{round(links.up_bytes_s)}B/s",
            "--download-rate",
            f"{round(links.down_bytes_s)}B/s",
        ]
    rack = stage.scenario.rack_of(node)
    if rack is not None:
        flags += ["--zone", f"bench/bench/rack-{rack}"]
    return flags


def _through(stage: Stage, mode: Mode, supernode: Supernode, nodes: Nodes, display: Display) -> Outcome:
    scenario, limits = stage.scenario.pulls_alone, stage.limits
    expected_s = limits.torrent_s if mode == "torrent" else max(limits.fluid_s, limits.piece_s)
    log = stage.folder / f"{mode}-clients.log"

    def product_cpu_s() -> float:
        return nodes.cpu_s() + cpu_s(supernode.process.pid)

    with Pulling(stage.site, scenario, nodes.proxies[: scenario.nodes], stage.image, log) as pulling:
        begin, end = _trouble_calls(stage, supernode)
        trouble = stage.plan.trouble if mode == "scheduled" else None
        with stage.meanwhile(supernode), happening(trouble, begin, end) as moments:
            measured = _measure(stage, pulling, scenario.arrivals_s(), expected_s, display, product_cpu_s)
    cost = origin_cost(stage.origin.ledger(), stage.image)
    display.step("collecting figures")
    scrapes = _scrapes(nodes, scenario.nodes)
    exact = {one: _sum(scrapes, "layercast_bytes_total", source=one) for one in SOURCES}
    delivered = scenario.size_bytes * len(measured.completed_s)
    traffic = measured.traffic
    common = _mode_run(stage, mode, measured, cost, exact)
    run = replace(
        common,
        seed_bytes=_seed_bytes(supernode),
        back_at_rate_s=_back_at_rate_s(common, moments, measured.began_s),
        peer_bytes=_sum(scrapes, "layercast_uploaded_bytes_total"),
        control_bytes=traffic.control_bytes if traffic is not None else None,
        cpu_s_per_gib=measured.product_cpu_s / (delivered / _GIB) if delivered else None,
        node_rss_mib=nodes.median_pss_bytes() / MIB,
        node_peak_mib=nodes.memory_peak_bytes() / MIB,
        supernode_rss_mib=supernode.process.memory_peak_bytes() / MIB,
        more={
            **common.more,
            "received_bytes": exact,
            "discarded_bytes": _sum(scrapes, "layercast_discarded_bytes_total"),
        },
    )
    problems = [*measured.problems, *cost.problems]
    if mode == "scheduled":
        problems += nothing_shared(scenario, exact["peer"])
    for node, status in sorted(nodes.look().items()):
        problems.append(f"node {node} ended with status {status}: {nodes.last_words(node)}")
    return Outcome(run, tuple(problems))


def _back_at_rate_s(run: ModeRun, moments: Moments, began_s: float) -> float | None:
    if moments.began_s is None or moments.over_s is None:
        return None
    return back_at_rate_s(run.samples, moments.began_s - began_s, moments.over_s - began_s)


def nothing_shared(scenario: Scenario, peer_bytes: int) -> list[str]:
    """A line where nodes got nothing from one another: clients are served all the same, so nothing else tells.

    Blobs of one piece may well come from the supernode alone.
    """
    pieces_max = max(scenario.layout(blob).count for blob in range(len(scenario.blobs)))
    if scenario.nodes <= 2 or pieces_max == 1 or peer_bytes:
        return []
    return [f"{scenario.nodes} nodes sent one another nothing: see layercast_piece_failures_total and the logs"]


# --- what both measure -----------------------------------------------------------------------------------------


def _measure(
    stage: Stage,
    pulling: Pulling,
    arrivals_s: Sequence[float | None],
    expected_s: float,
    display: Display,
    product_cpu_s: Callable[[], float],
) -> _Measured:
    """From the manifests to the last client's end."""
    display.step("the clients fetch their manifests")
    pulling.prepare(arrivals_s)
    stage.origin.proxy.reset()
    watcher = Watcher(stage.site, expected_s, troubled=stage.plan.trouble is not None)
    clients_cpu_s = cpu_s(pulling.pid)
    before_cpu_s = product_cpu_s()
    cores = CoreTime.now()
    began_s = pulling.go()
    watcher.begin(began_s)
    patience_s = _PATIENCE_S + _PATIENCE * expected_s
    regular = sum(at_s is not None for at_s in arrivals_s)
    joined = regular == len(arrivals_s)
    try:
        for ended in pulling.finishing(time.monotonic() + patience_s):
            if not joined and ended >= regular:
                joined = True
                pulling.join()
            _show(stage, display, watcher, ended)
        then = CoreTime.now()
        used_cpu_s = product_cpu_s() - before_cpu_s
    finally:
        readings = watcher.end()
    clients_cpu_s = cpu_s(pulling.pid) - clients_cpu_s
    return _Measured(
        nodes=pulling.outcome(),
        readings=readings,
        busy=then.busy_since(cores),
        network=then.network_since(cores),
        product_cpu_s=used_cpu_s,
        clients_cpu_s=clients_cpu_s,
        began_s=began_s,
    )


def _mode_run(
    stage: Stage, mode: Mode, measured: _Measured, cost: OriginCost, received: Mapping[Source, int]
) -> ModeRun:
    """What is known of every mode; `received` are the bytes that all nodes got, by source."""
    traffic, answered_s = measured.traffic, cost.first_byte_s
    return ModeRun(
        mode=mode,
        nodes=measured.nodes,
        samples=samples(measured.readings, received, measured.completed_s),
        origin_bytes=cost.sent_bytes,
        origin_gets=cost.gets,
        origin_repeated_bytes=cost.repeated_bytes,
        origin_first_byte_s=None if answered_s is None else answered_s - measured.began_s,
        cross_rack_bytes=traffic.into_racks_bytes if traffic is not None and stage.scenario.racks else None,
        cpu_busy=measured.busy,
        cpu_network=measured.network,
        more={"clients_cpu_s": measured.clients_cpu_s, "origin_doubtful_bytes": cost.doubtful_bytes},
    )


def _show(stage: Stage, display: Display, watcher: Watcher, done: int) -> None:
    latest = watcher.latest
    if latest is not None:
        display.show(done, watcher.rate_bytes_s(), lambda: latest.traffic.origin_sent_bytes)
    elif not stage.plan.shaped:
        display.show(done, None, lambda: origin_cost(stage.origin.ledger(), stage.image).sent_bytes)


def _scrapes(nodes: Nodes, count: int) -> list[Metrics]:
    """Of all nodes that answer."""
    found = []
    for node in range(count):
        if node not in nodes.look():
            with contextlib.suppress(OSError, ValueError):  # it is reported as a node that ended, or as one that failed
                found.append(nodes.metrics(node))
    return found


def _sum(scrapes: Sequence[Metrics], name: str, **labels: str) -> int:
    return int(sum(one.value(name, **labels) for one in scrapes))
