"""`layercast-bench scheduler`: what the scheduler alone costs while a swarm goes from cold to complete.

Four passes over the same run, which is the same every time: in one the CPU time of each turn of events is read, in one
the wall time of each handle(), one is stopped when half of all pieces are delivered to see what the scheduler then
holds, one (--profile, of an interpreted scheduler) is profiled. Only the scheduler is timed: events are made, and
transfers carried out, outside the clocks. The garbage collector runs as in the service.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import time
import tracemalloc
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.flags import count, seed
from benchmarks.report import Outputs, console, machine, print_table, write_json
from benchmarks.report.summary import quantile
from benchmarks.scheduler_swarm import PIECE_BYTES, RATE_BYTES_S, READER_EVERY, ColdSwarm, handle_all
from proto.errors import ConfigError
from proto.pieces import PIECE_COUNT_MAX
from proto.runtime.program import GARBAGE_THRESHOLDS
from supernode.scheduler import build as scheduler_build
from supernode.scheduler.machine import Scheduler

if TYPE_CHECKING:
    import argparse

    from benchmarks.scheduler_swarm import Turn
    from supernode.scheduler.contract import Command, Event

HELP = "leases/s of the scheduler on one core, the time of one handle(), and its memory"

_PEERS_MAX: Final = 20_000
# Up to so many peers, and the leases/s that are wanted of a compiled scheduler.
_LEASES_PER_S: Final = ((200, 50_000.0), (_PEERS_MAX, 25_000.0))
_HANDLE_P99_S: Final = 0.005
# Up to so many peers, and how far above the piece bound the makespan may lie.
_X_PIECE: Final = ((200, 1.03), (1000, 1.10), (_PEERS_MAX, 1.15))
_PROFILE_ROWS: Final = 30


class Timed:
    """Counts the CPU time of all turns of a scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.cpu_ns = 0

    def turn(self, events: list[Event], now: float) -> list[Command]:
        """Handle them all, and look when to come back as the service does."""
        began_cpu = time.process_time_ns()
        commands = handle_all(self._scheduler, events, now)
        self._scheduler.next_wakeup()
        self.cpu_ns += time.process_time_ns() - began_cpu
        return commands


class Clocked:
    """Keeps the wall time of every handle() of a scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.handles_ns = array("q")

    def turn(self, events: list[Event], now: float) -> list[Command]:
        """Handle them all."""
        handle, clock, keep = self._scheduler.handle, time.perf_counter_ns, self.handles_ns.append
        commands: list[Command] = []
        for event in events:
            began = clock()
            given = handle(event, now)
            keep(clock() - began)
            commands += given
        return commands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--peers", metavar="N", help="nodes that want the blob [200]")
    parser.add_argument("--pieces", metavar="M", help="pieces of the blob [125]")
    parser.add_argument("--seed", default="1", metavar="S", help="of the scheduler's random [1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--profile", action="store_true", help="say where the time goes, function by function")


@dataclass(frozen=True, slots=True)
class Size:
    """What a swarm is measured with."""

    peers: int
    pieces: int
    seed: int

    def scheduler(self) -> Scheduler:
        """A fresh one."""
        return Scheduler(seed=self.seed, epoch=1)

    def swarm(self, scheduler: Scheduler, turn: Turn | None = None) -> ColdSwarm:
        """Everybody has joined and wants the blob. What the set-up left is collected before."""
        swarm = ColdSwarm(scheduler, self.peers, self.pieces, turn=turn)
        gc.collect()
        swarm.open()
        return swarm

    @property
    def deliveries(self) -> int:
        """Pieces that all nodes need together."""
        return self.peers * self.pieces


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep. Raises ConfigError and LocalError."""
    peers = count("--peers", arguments.peers, 200, 1, _PEERS_MAX)
    size = Size(peers, count("--pieces", arguments.pieces, 125, 1, PIECE_COUNT_MAX), seed(arguments.seed))
    Outputs(json_path=arguments.json).check()
    if arguments.profile and scheduler_build() == "compiled":
        raise ConfigError("--profile: of a compiled scheduler no functions are seen; run the interpreted one")
    document = _document(size)
    console.print("timing")
    document |= _timed_pass(size)
    console.print("timing each handle()")
    document |= _clocked_pass(size)
    console.print("tracing memory")
    document["bytes_per_peer_and_piece"] = _memory_pass(size)
    _print(document)
    if arguments.profile:
        console.print("profiling")
        _profile_pass(size)
    if arguments.json is not None:
        write_json(arguments.json, document)
    return 0


def _document(size: Size) -> dict[str, object]:
    return {
        "benchmark": "scheduler",
        "machine": machine(),
        **asdict(size),
        "build": scheduler_build(),
        "links": {"rate_bytes_s": RATE_BYTES_S, "piece_bytes": PIECE_BYTES, "declared": False},
        "reader_every": READER_EVERY,
    }


def _timed_pass(size: Size) -> dict[str, object]:
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    scheduler = size.scheduler()
    timed = Timed(scheduler)
    began, began_cpu = time.perf_counter(), time.process_time()
    swarm = size.swarm(scheduler, timed.turn)
    swarm.run(size.deliveries)
    elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    counters = scheduler.counters
    return {
        "leases": counters["granted"],
        "raced": counters["raced"],
        "expired": counters["expired"],
        "cancelled": counters["cancelled"],
        "leases_per_s": counters["granted"] / (timed.cpu_ns / 1e9),
        "scheduler_cpu_s": timed.cpu_ns / 1e9,
        "driver_cpu_s": cpu_s - timed.cpu_ns / 1e9,
        "elapsed_s": elapsed_s,
        "makespan_s": swarm.delivered_at,
        "bounds": {"piece_s": swarm.bound_s},
        "x_piece": swarm.delivered_at / swarm.bound_s,
    }


def _clocked_pass(size: Size) -> dict[str, object]:
    scheduler = size.scheduler()
    clocked = Clocked(scheduler)
    size.swarm(scheduler, clocked.turn).run(size.deliveries)
    handles_s = [nanoseconds / 1e9 for nanoseconds in sorted(clocked.handles_ns)]
    return {
        "handles": len(handles_s),
        "handle_p50_s": quantile(handles_s, 0.5),
        "handle_p99_s": quantile(handles_s, 0.99),
        "handle_max_s": handles_s[-1],
    }


def _memory_pass(size: Size) -> float:
    """Bytes that the scheduler holds when half of all pieces are delivered, by peers and pieces.

    That is what is left of the run when all but the scheduler is let go: compiled modules name no lines to count by.
    """
    gc.collect()
    tracemalloc.start()
    try:
        scheduler = size.scheduler()
        size.swarm(scheduler).run(size.deliveries // 2)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / size.deliveries
    finally:
        tracemalloc.stop()


def _profile_pass(size: Size) -> None:
    profile, scheduler = cProfile.Profile(), size.scheduler()
    swarm = size.swarm(scheduler, lambda events, now: profile.runcall(handle_all, scheduler, events, now))
    swarm.run(size.deliveries)
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(_PROFILE_ROWS)


def _print(document: dict[str, object]) -> None:
    def figure(name: str) -> float:
        value = document[name]
        assert isinstance(value, int | float)
        return value

    peers, pieces = document["peers"], document["pieces"]
    x_limit = next(limit for up_to, limit in _X_PIECE if figure("peers") <= up_to)
    rate_limit = next(limit for up_to, limit in _LEASES_PER_S if figure("peers") <= up_to)
    rows = [
        _row("leases/s on one core", "leases_per_s", figure("leases_per_s"), rate_limit, at_least=True),
        _row("p99 of one handle(), ms", "handle_p99_s", 1e3 * figure("handle_p99_s"), 1e3 * _HANDLE_P99_S),
        ("median of one handle(), ms", f"{1e3 * figure('handle_p50_s'):.3f}", "", ""),
        ("longest handle(), ms", f"{1e3 * figure('handle_max_s'):.3f}", "", ""),
        ("bytes per peer and piece", f"{figure('bytes_per_peer_and_piece'):.1f}", "", ""),
        _row("makespan / piece bound", "x_piece", figure("x_piece"), x_limit),
    ]
    print_table(f"{peers} peers, {pieces} pieces, cold to complete", ("", "measured", "limit", ""), rows)
    print(
        f"{document['build']}: {document['leases']} leases, {document['raced']} raced, {document['expired']} expired, "
        f"{document['cancelled']} cancelled; {document['handles']} events; "
        f"CPU: scheduler {figure('scheduler_cpu_s'):.2f} s, driver {figure('driver_cpu_s'):.2f} s (not counted)"
    )


def _row(what: str, name: str, value: float, limit: float, *, at_least: bool = False) -> tuple[str, str, str, str]:
    digits = 0 if name == "leases_per_s" else 3
    reached = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    verdict = "reached" if reached else "NOT REACHED"
    return what, f"{value:,.{digits}f}", f"{sign} {limit:,.{min(digits, 2)}f}", verdict
