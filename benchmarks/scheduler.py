"""`layercast-bench scheduler`: what the scheduler alone costs while a swarm goes from cold to complete.

Four passes over the same run, which is the same every time: in one the CPU time of each turn of events is read, in one
the wall time of each handle(), one is stopped when half of all pieces are delivered to see what the scheduler then
holds, one (--profile, of an interpreted scheduler) is profiled. Only the scheduler is timed: events are made, and
transfers carried out, outside the clocks. The garbage collector runs as in the service.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
import time
import tracemalloc
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import machine, print_table, write_json
from benchmarks.scheduler_swarm import PIECE_BYTES, RATE_BYTES_S, READER_EVERY, ColdSwarm
from proto.errors import ConfigError
from proto.pieces import PIECE_COUNT_MAX
from proto.runtime.program import GARBAGE_THRESHOLDS
from supernode.scheduler import build as scheduler_build
from supernode.scheduler.machine import Scheduler

if TYPE_CHECKING:
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
    """The scheduler under a clock that counts the CPU time of all turns."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.cpu_ns = 0

    def turn(self, events: list[Event], now: float) -> list[Command]:
        """See Machine."""
        handle = self.scheduler.handle
        commands: list[Command] = []
        began_cpu = time.process_time_ns()
        for event in events:
            commands += handle(event, now)
        self.cpu_ns += time.process_time_ns() - began_cpu
        return commands

    def next_wakeup(self) -> float | None:
        """See Machine. Timed like the rest."""
        began_cpu = time.process_time_ns()
        due = self.scheduler.next_wakeup()
        self.cpu_ns += time.process_time_ns() - began_cpu
        return due


class Clocked:
    """The scheduler under a clock that keeps the wall time of every handle()."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.handles_ns = array("q")

    def turn(self, events: list[Event], now: float) -> list[Command]:
        """See Machine."""
        handle, clock, keep = self.scheduler.handle, time.perf_counter_ns, self.handles_ns.append
        commands: list[Command] = []
        for event in events:
            began = clock()
            given = handle(event, now)
            keep(clock() - began)
            commands += given
        return commands

    def next_wakeup(self) -> float | None:
        """See Machine."""
        return self.scheduler.next_wakeup()


class Plain:
    """The scheduler without a clock, under a profiler if there is one."""

    def __init__(self, scheduler: Scheduler, profile: cProfile.Profile | None = None) -> None:
        self.scheduler = scheduler
        self._profile = profile

    def turn(self, events: list[Event], now: float) -> list[Command]:
        """See Machine."""
        if self._profile is None:
            return self._handle_all(events, now)
        return self._profile.runcall(self._handle_all, events, now)

    def next_wakeup(self) -> float | None:
        """See Machine."""
        return self.scheduler.next_wakeup()

    def _handle_all(self, events: list[Event], now: float) -> list[Command]:
        commands: list[Command] = []
        for event in events:
            commands += self.scheduler.handle(event, now)
        return commands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--peers", type=peer_count, default=200, metavar="N", help="nodes that want the blob (200)")
    parser.add_argument("--pieces", type=piece_count, default=125, metavar="M", help="pieces of the blob (125)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the scheduler's random (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--profile", action="store_true", help="say where the time goes, function by function")


def peer_count(text: str) -> int:
    """1 to 20000. Raises ArgumentTypeError."""
    return _count(text, _PEERS_MAX)


def piece_count(text: str) -> int:
    """1 to 65536. Raises ArgumentTypeError."""
    return _count(text, PIECE_COUNT_MAX)


def _count(text: str, largest: int) -> int:
    # A length first: int() of a very long text is refused with an error of its own.
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or not 1 <= int(text) <= largest:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to {largest}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep."""
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {arguments.json}: its folder does not exist; make it first")
    if arguments.profile and scheduler_build() == "compiled":
        raise ConfigError("--profile: of a compiled scheduler no functions are seen; run the interpreted one")
    document = _document(arguments)
    _tell("timing")
    document |= _timed_pass(arguments)
    _tell("timing each handle()")
    document |= _clocked_pass(arguments)
    _tell("tracing memory")
    document["bytes_per_peer_and_piece"] = _memory_pass(arguments)
    _print(document)
    if arguments.profile:
        _tell("profiling")
        _profile_pass(arguments)
    if arguments.json is not None:
        try:
            write_json(arguments.json, document)
        except OSError as error:
            raise ConfigError(f"--json {arguments.json}: {error.strerror}; name a file that can be written") from None
    return 0


def _document(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "benchmark": "scheduler",
        "machine": machine(),
        "peers": arguments.peers,
        "pieces": arguments.pieces,
        "seed": arguments.seed,
        "build": scheduler_build(),
        "links": {"rate_bytes_s": RATE_BYTES_S, "piece_bytes": PIECE_BYTES, "declared": False},
        "reader_every": READER_EVERY,
    }


def _scheduler(arguments: argparse.Namespace) -> Scheduler:
    return Scheduler(seed=arguments.seed, epoch=1)


def _timed_pass(arguments: argparse.Namespace) -> dict[str, object]:
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    timed = Timed(_scheduler(arguments))
    swarm = ColdSwarm(timed, arguments.peers, arguments.pieces)
    gc.collect()
    began, began_cpu = time.perf_counter(), time.process_time()
    swarm.open()
    swarm.run(arguments.peers * arguments.pieces)
    elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    counters = timed.scheduler.counters
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


def _clocked_pass(arguments: argparse.Namespace) -> dict[str, object]:
    clocked = Clocked(_scheduler(arguments))
    swarm = ColdSwarm(clocked, arguments.peers, arguments.pieces)
    gc.collect()
    swarm.open()
    swarm.run(arguments.peers * arguments.pieces)
    handles_s = [nanoseconds / 1e9 for nanoseconds in sorted(clocked.handles_ns)]
    return {
        "handles": len(handles_s),
        "handle_p50_s": _part(handles_s, 0.5),
        "handle_p99_s": _part(handles_s, 0.99),
        "handle_max_s": handles_s[-1],
    }


def _part(ordered: list[float], part: float) -> float:
    """The smallest value that at least this part of all does not exceed."""
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def _memory_pass(arguments: argparse.Namespace) -> float:
    """Bytes that the scheduler holds when half of all pieces are delivered, by peers and pieces.

    That is what is left of the run when all but the scheduler is let go: compiled modules name no lines to count by.
    """
    deliveries: int = arguments.peers * arguments.pieces
    gc.collect()
    tracemalloc.start()
    try:
        return _held_half_way(_scheduler(arguments), arguments.peers, arguments.pieces) / deliveries
    finally:
        tracemalloc.stop()


def _held_half_way(scheduler: Scheduler, peers: int, pieces: int) -> int:
    swarm = ColdSwarm(Plain(scheduler), peers, pieces)
    swarm.open()
    swarm.run(peers * pieces // 2)
    del swarm
    gc.collect()
    # The caller holds the scheduler until this returns.
    return tracemalloc.get_traced_memory()[0]


def _profile_pass(arguments: argparse.Namespace) -> None:
    profile = cProfile.Profile()
    swarm = ColdSwarm(Plain(_scheduler(arguments), profile), arguments.peers, arguments.pieces)
    swarm.open()
    swarm.run(arguments.peers * arguments.pieces)
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


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
