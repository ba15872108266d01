"""`layercast-bench dataplane`: what it costs to move a blob from one peer's disk to another's, by size and by way.

One run on loopback: each round moves the same blob once by every way, interleaved, in two fresh processes. All
files lie in one temporary folder, on one file system; the source is in the page cache, a target is new each time
and deleted after. Ours goes in two cuts: that of a blob while nothing is measured, and the one that the supernode
would choose by the rate of the first, as for all blobs of a cluster but the first few; the targets are for that one.
What counts is the CPU of both processes (user and system, from the moment both are ready) and the time until the
receiver has hashed, written and checked the blob. Medians over the rounds.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.dataplane.content import hash_costs, make_source
from benchmarks.dataplane.transfer import Measured, transfer
from benchmarks.flags import checked, count, whole
from benchmarks.report import Outputs, console, machine, print_table, write_json
from benchmarks.report.terminal import size as size_text
from proto.config.values import parse_size
from proto.errors import ConfigError
from proto.pieces import KIB, MIB, PieceLayout, piece_size_at

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from benchmarks.dataplane.contract import Job

HELP = "CPU-seconds per GiB and GiB/s of our transport, plain and by TLS, of bare floors of both, aiohttp, libtorrent"

_GIB: Final = 1024 * MIB
_SIZES: Final = "1MiB,8MiB,64MiB,1GiB"
_ROUNDS_MAX: Final = 100
_SPARE_BYTES: Final = 64 * MIB
_FLOOR_BUFFERS: Final = (64 * KIB, 256 * KIB, MIB)
_TLS_BUFFER: Final = 256 * KIB
# What the supernode knows when it cuts the next blob for these two processes: what leases take is not part of this run.
_NODES: Final = 2
_LEASE_S: Final = 0.0
_RATE_RUNS: Final = 3
# Ours over the floor at most, for blobs from this size on: what is paid once for a blob weighs more in a small one.
_CPU_TARGETS_OF_FLOOR: Final = ((_GIB, 1.15), (64 * MIB, 1.4), (8 * MIB, 2.0))
_CPU_TARGET_OF_TLS_FLOOR: Final = 1.25
_CPU_TARGET_OF_TORRENT: Final = 0.5


@dataclass
class Row:
    """One way's measurements, or a `part` of them that is shown on its own."""

    name: str
    way: str
    buffer_bytes: int = 0
    part: str = "all"
    # Whether it goes in the cut of a blob while nothing is measured.
    first_cut: bool = False
    runs: list[Measured] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Median of the CPU-seconds of both processes."""
        return statistics.median(run.cpu_s(self.part) for run in self.runs)

    def elapsed_s(self) -> float:
        """Median."""
        return statistics.median(run.elapsed_s(self.part) for run in self.runs)


@dataclass
class Figures:
    """Every way's runs with one size of blob. `first` is ours in the cut of a blob while nothing is measured."""

    size_bytes: int
    floors: list[Row]
    ours: Row
    first: Row
    aiohttp: Row
    torrent: Row
    private: Row
    tls_floor: Row

    @property
    def floor(self) -> Row:
        """At its best."""
        best = min(self.floors, key=Row.cpu_s)
        return replace(best, name=f"floor (its best: {best.buffer_bytes // KIB} KiB)")

    @property
    def measured(self) -> list[Row]:
        return [*self.floors, self.ours, self.first, self.aiohttp, self.torrent, self.private, self.tls_floor]

    @property
    def shown(self) -> list[Row]:
        parts = [
            Row("layercast, when the last piece is held", "layercast", part="pieces", runs=self.ours.runs),
            Row("libtorrent, without the blob's sha256", "torrent", part="pieces", runs=self.torrent.runs),
        ]
        ours = [self.ours, self.first]
        return [self.floor, *ours, self.aiohttp, self.torrent, self.private, self.tls_floor, *parts, *self.floors]

    def ratios(self) -> list[tuple[str, float, float | None]]:
        """What is wanted: its name, the figure, and the most that it may be."""
        targets = (limit for size, limit in _CPU_TARGETS_OF_FLOOR if self.size_bytes >= size)
        ours = self.ours.cpu_s()
        return [
            ("layercast / floor", ours / self.floor.cpu_s(), next(targets, None)),
            ("layercast, first cut / floor", self.first.cpu_s() / self.floor.cpu_s(), None),
            ("layercast / aiohttp", ours / self.aiohttp.cpu_s(), 1.0),
            ("layercast / libtorrent", ours / self.torrent.cpu_s(), _CPU_TARGET_OF_TORRENT),
            (
                "layercast, private / floor with TLS",
                self.private.cpu_s() / self.tls_floor.cpu_s(),
                _CPU_TARGET_OF_TLS_FLOOR,
            ),
            ("layercast, private / public", self.private.cpu_s() / ours, None),
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("--size", default=_SIZES, metavar="SIZE,...", help=f"of the blobs, one after the other [{_SIZES}]")
    add("--rounds", metavar="N", help="interleaved rounds of each size [5]")
    add("--parallel", metavar="N", help="our fetches at a time [2]")
    add("--seed", default="1", metavar="N", help="of the blobs' random bytes [1]")
    add("--dir", type=Path, metavar="DIR", help="where the files lie [the system's temporary folder]")
    add("--json", type=Path, metavar="FILE", help="write every figure there")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep. Raises ConfigError and LocalError."""
    sizes = [checked("--size", word, parse_size, MIB, "at least 1MiB") for word in arguments.size.split(",")]
    rounds = count("--rounds", arguments.rounds, 5, 1, _ROUNDS_MAX)
    parallel = count("--parallel", arguments.parallel, 2, 1)
    seed = checked("--seed", arguments.seed, whole, 0, "a whole number")
    Outputs(json_path=arguments.json).check()
    folder = _make_folder(arguments.dir, max(sizes))
    hashes: list[dict[str, float]] = []
    found: list[Figures] = []
    blob = folder / "blob"
    try:
        for size_bytes in sizes:
            console.print(f"files in {folder}; making {size_text(size_bytes)} of random bytes")
            first, learnt = _sources(blob, size_bytes, seed, parallel)
            found.append(_measure(first, learnt, rounds, hashes))
            shutil.rmtree(blob)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for figures in found:
        _print(figures)
    hash_medians = {name: statistics.median(each[name] for each in hashes) for name in hashes[0]}
    _print_machine(hash_medians)
    if arguments.json is not None:
        document = {"rounds": rounds, "parallel": parallel, "seed": seed, **_document(found, hash_medians)}
        write_json(arguments.json, document)
    return 0


def _make_folder(parent: Path | None, size_bytes: int) -> Path:
    """Raises ConfigError for what would fail after minutes of measuring."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="layercast-dataplane-", dir=parent))
    except OSError as error:
        raise ConfigError(f"--dir {parent}: {error.strerror}; name a folder that can be written") from None
    free = shutil.disk_usage(folder).free
    # The source in two cuts and one target at a time.
    if free < 3 * size_bytes + _SPARE_BYTES:
        folder.rmdir()
        raise ConfigError(f"{folder.parent} has {free} bytes free, too few for three blobs: use --dir or --size")
    return folder


def _sources(folder: Path, size_bytes: int, seed: int, parallel: int) -> tuple[Job, Job]:
    """The blob in its first cut, and in that for the rate at which pieces of the first came."""

    def source(name: str, layout: PieceLayout) -> Job:
        (folder / name).mkdir(parents=True)
        return replace(make_source(folder / name, layout, seed), parallel=parallel)

    first = source("first", PieceLayout.of(size_bytes))
    fastest_s = min(transfer("layercast", first).elapsed_s("pieces") for _ in range(_RATE_RUNS))
    piece_size_bytes = piece_size_at(size_bytes, size_bytes / fastest_s, _LEASE_S, _NODES)
    return first, source("learnt", PieceLayout(size_bytes, piece_size_bytes))


def _measure(first: Job, learnt: Job, count: int, hashes: list[dict[str, float]]) -> Figures:
    """Every way's runs; what hashing alone costs goes to `hashes`."""
    found = Figures(
        learnt.size_bytes,
        [Row(f"floor, {buffer // KIB} KiB buffer", "floor", buffer) for buffer in _FLOOR_BUFFERS],
        ours=Row(f"layercast, pieces of {size_text(learnt.piece_size_bytes)}", "layercast"),
        first=Row(f"layercast, first cut: {size_text(first.piece_size_bytes)}", "layercast", first_cut=True),
        aiohttp=Row("aiohttp", "aiohttp_way"),
        torrent=Row("libtorrent", "torrent"),
        private=Row("layercast, private: by TLS", "layercast_tls"),
        tls_floor=Row(f"floor with TLS, {_TLS_BUFFER // KIB} KiB buffer", "floor_tls", _TLS_BUFFER),
    )
    gib = learnt.size_bytes / _GIB
    for number in range(count):
        hashes.append(hash_costs())
        for row in found.measured:
            job = first if row.first_cut else learnt
            measured = transfer(row.way, replace(job, buffer_bytes=row.buffer_bytes))
            row.runs.append(measured)
            cpu, elapsed = measured.cpu_s("all") / gib, measured.elapsed_s("all") / gib
            console.print(f"round {number + 1}/{count}: {row.name}: {cpu:.2f} CPU-s/GiB, {1 / elapsed:.2f} GiB/s")
    return found


def _document(found: Iterable[Figures], hashes: dict[str, float]) -> dict[str, object]:
    return {
        "benchmark": "dataplane",
        "machine": machine(),
        "hash_cpu_s_per_gib": hashes,
        "sizes": [
            {
                "size_bytes": figures.size_bytes,
                "ways": [_way(row, figures) for row in figures.shown],
                "ratios": {name: {"is": value, "at_most": limit} for name, value, limit in figures.ratios()},
            }
            for figures in found
        ],
    }


def _way(row: Row, figures: Figures) -> dict[str, object]:
    gib = figures.size_bytes / _GIB
    return {
        "name": row.name,
        "cpu_s_per_gib": row.cpu_s() / gib,
        "sender_cpu_s_per_gib": statistics.median(each.sender.cpu_s for each in row.runs) / gib,
        "gib_per_s": gib / row.elapsed_s(),
        "cpu_over_floor": row.cpu_s() / figures.floor.cpu_s(),
        "lowest_cpu_s_per_gib": min(each.cpu_s(row.part) for each in row.runs) / gib,
        "runs_cpu_s": [each.cpu_s(row.part) for each in row.runs],
        "runs_elapsed_s": [each.elapsed_s(row.part) for each in row.runs],
    }


def _print(figures: Figures) -> None:
    gib, floor = figures.size_bytes / _GIB, figures.floor.cpu_s()
    table = [
        (
            row.name,
            f"{row.cpu_s() / gib:.2f}",
            f"{min(each.cpu_s(row.part) for each in row.runs) / gib:.2f}",
            f"{statistics.median(each.sender.cpu_s for each in row.runs) / gib:.2f}",
            f"{gib / row.elapsed_s():.3f}",
            f"{row.cpu_s() / floor:.3f}",
        )
        for row in figures.shown
    ]
    columns = ("way", "CPU-s/GiB", "lowest", "of it sender", "GiB/s", "x floor")
    size = size_text(figures.size_bytes)
    print_table(f"one blob of {size}, median of {len(figures.ours.runs)}", columns, table)
    for name, value, limit in figures.ratios():
        verdict = "" if limit is None else f", at most {limit}: {'reached' if value <= limit else 'NOT REACHED'}"
        print(f"{size}: {name} {value:.3f}{verdict}")


def _print_machine(hashes: dict[str, float]) -> None:
    print(f"hashing alone, CPU-s/GiB: sha256 {hashes['sha256']:.2f}, blake3 {hashes['blake3']:.2f}")
    where = machine()
    instructions = "with" if where["sha_instructions"] else "without"
    print(f"{where['processor']}, {where['cores']} cores, {instructions} SHA instructions")
