"""`layercast-bench dataplane`: what it costs to move a blob from one peer's disk to another's, way by way.

One run on loopback: each round moves the same blob once by every way, interleaved, in two fresh processes. All
files lie in one temporary folder, on one file system; the source is in the page cache, a target is new each time
and deleted after. What counts is the CPU of both processes (user and system, from the moment both are ready) and
the time until the receiver has hashed, written and checked the blob. Medians over the rounds.
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
from proto.pieces import KIB, MIB

if TYPE_CHECKING:
    import argparse

    from benchmarks.dataplane.contract import Job

HELP = "CPU-seconds per GiB and GiB/s of our transport, plain and by TLS, of bare floors of both, and of libtorrent"

_GIB: Final = 1024 * MIB
_ROUNDS_MAX: Final = 100
_SPARE_BYTES: Final = 64 * MIB
_FLOOR_BUFFERS: Final = (64 * KIB, 256 * KIB, MIB)
_TLS_BUFFER: Final = 256 * KIB
_CPU_TARGET_OF_FLOOR: Final = 1.25
_CPU_TARGET_OF_TORRENT: Final = 0.5


@dataclass
class Row:
    """One way's measurements, or a `part` of them that is shown on its own."""

    name: str
    way: str
    buffer_bytes: int = 0
    part: str = "all"
    runs: list[Measured] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Median of the CPU-seconds of both processes."""
        return statistics.median(run.cpu_s(self.part) for run in self.runs)

    def elapsed_s(self) -> float:
        """Median."""
        return statistics.median(run.elapsed_s(self.part) for run in self.runs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("--size", default="1GiB", metavar="SIZE", help="of the blob [1GiB]")
    add("--rounds", metavar="N", help="interleaved rounds [5]")
    add("--parallel", metavar="N", help="our fetches at a time [2]")
    add("--seed", default="1", metavar="N", help="of the blob's random bytes [1]")
    add("--dir", type=Path, metavar="DIR", help="where the files lie [the system's temporary folder]")
    add("--json", type=Path, metavar="FILE", help="write every figure there")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep. Raises ConfigError and LocalError."""
    size_bytes = checked("--size", arguments.size, parse_size, MIB, "at least 1MiB")
    rounds = count("--rounds", arguments.rounds, 5, 1, _ROUNDS_MAX)
    parallel = count("--parallel", arguments.parallel, 2, 1)
    seed = checked("--seed", arguments.seed, whole, 0, "a whole number")
    Outputs(json_path=arguments.json).check()
    folder = _make_folder(arguments.dir, size_bytes)
    try:
        console.print(f"files in {folder}; making {size_text(size_bytes)} of random bytes")
        job = replace(make_source(folder, size_bytes, seed), parallel=parallel)
        rows, hashes = _measure(job, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    document = {"rounds": rounds, "parallel": parallel, "seed": seed, **_figures(size_bytes, rows, hashes)}
    _print(size_bytes, rows, hashes)
    if arguments.json is not None:
        write_json(arguments.json, document)
    return 0


def _make_folder(parent: Path | None, size_bytes: int) -> Path:
    """Raises ConfigError for what would fail after minutes of measuring."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="layercast-dataplane-", dir=parent))
    except OSError as error:
        raise ConfigError(f"--dir {parent}: {error.strerror}; name a folder that can be written") from None
    free = shutil.disk_usage(folder).free
    # The source and one target at a time.
    if free < 2 * size_bytes + _SPARE_BYTES:
        folder.rmdir()
        raise ConfigError(f"{folder.parent} has {free} bytes free, too few for two blobs: use --dir or --size")
    return folder


def _measure(job: Job, count: int) -> tuple[list[Row], dict[str, float]]:
    """Every way's runs, the floor at its best first, and what hashing alone costs."""
    hashes: list[dict[str, float]] = []
    floors = [Row(f"floor, {buffer // KIB} KiB buffer", "floor", buffer) for buffer in _FLOOR_BUFFERS]
    private = [
        Row("layercast, private: by TLS", "layercast_tls"),
        Row(f"floor with TLS, {_TLS_BUFFER // KIB} KiB buffer", "floor_tls", _TLS_BUFFER),
    ]
    rows = [*floors, Row("layercast", "layercast"), Row("libtorrent", "torrent"), *private]
    for number in range(count):
        hashes.append(hash_costs())
        for row in rows:
            measured = transfer(row.way, replace(job, buffer_bytes=row.buffer_bytes))
            row.runs.append(measured)
            gib = job.size_bytes / _GIB
            cpu, elapsed = measured.cpu_s("all") / gib, measured.elapsed_s("all") / gib
            console.print(f"round {number + 1}/{count}: {row.name}: {cpu:.2f} CPU-s/GiB, {1 / elapsed:.2f} GiB/s")
    ours, torrent = rows[len(floors) : len(floors) + 2]
    parts = [
        Row("layercast, when the last piece is held", "layercast", part="pieces", runs=ours.runs),
        Row("libtorrent, without the blob's sha256", "torrent", part="pieces", runs=torrent.runs),
    ]
    floor = min(floors, key=Row.cpu_s)
    best = replace(floor, name=f"floor (its best: {floor.buffer_bytes // KIB} KiB)")
    medians = {name: statistics.median(each[name] for each in hashes) for name in hashes[0]}
    return [best, *rows[len(floors) :], *parts, *floors], medians


def _figures(size_bytes: int, rows: list[Row], hashes: dict[str, float]) -> dict[str, object]:
    gib = size_bytes / _GIB
    floor, ours, torrent, private, tls_floor = (row.cpu_s() for row in rows[:5])
    return {
        "benchmark": "dataplane",
        "machine": machine(),
        "size_bytes": size_bytes,
        "ways": [
            {
                "name": row.name,
                "cpu_s_per_gib": row.cpu_s() / gib,
                "sender_cpu_s_per_gib": statistics.median(each.sender.cpu_s for each in row.runs) / gib,
                "gib_per_s": gib / row.elapsed_s(),
                "cpu_over_floor": row.cpu_s() / floor,
                "lowest_cpu_s_per_gib": min(each.cpu_s(row.part) for each in row.runs) / gib,
                "runs_cpu_s": [each.cpu_s(row.part) for each in row.runs],
                "runs_elapsed_s": [each.elapsed_s(row.part) for each in row.runs],
            }
            for row in rows
        ],
        "hash_cpu_s_per_gib": hashes,
        "ours_over_floor": ours / floor,
        "ours_over_floor_at_most": _CPU_TARGET_OF_FLOOR,
        "ours_over_libtorrent": ours / torrent,
        "ours_over_libtorrent_below": _CPU_TARGET_OF_TORRENT,
        "private_over_public": private / ours,
        "private_over_tls_floor": private / tls_floor,
        "private_over_tls_floor_at_most": _CPU_TARGET_OF_FLOOR,
    }


def _print(size_bytes: int, rows: list[Row], hashes: dict[str, float]) -> None:
    gib, floor = size_bytes / _GIB, rows[0].cpu_s()
    table = [
        (
            row.name,
            f"{row.cpu_s() / gib:.2f}",
            f"{min(each.cpu_s(row.part) for each in row.runs) / gib:.2f}",
            f"{statistics.median(each.sender.cpu_s for each in row.runs) / gib:.2f}",
            f"{gib / row.elapsed_s():.3f}",
            f"{row.cpu_s() / floor:.3f}",
        )
        for row in rows
    ]
    columns = ("way", "CPU-s/GiB", "lowest", "of it sender", "GiB/s", "x floor")
    print_table(f"one blob of {size_text(size_bytes)}, median of {len(rows[0].runs)}", columns, table)
    print(f"hashing alone, CPU-s/GiB: sha256 {hashes['sha256']:.2f}, blake3 {hashes['blake3']:.2f}")
    where = machine()
    instructions = "with" if where["sha_instructions"] else "without"
    print(f"{where['processor']}, {where['cores']} cores, {instructions} SHA instructions")
    for name, value, limit in (
        ("layercast / floor, at most", rows[1].cpu_s() / floor, _CPU_TARGET_OF_FLOOR),
        ("layercast / libtorrent, below", rows[1].cpu_s() / rows[2].cpu_s(), _CPU_TARGET_OF_TORRENT),
        ("layercast, private / floor with TLS, at most", rows[3].cpu_s() / rows[4].cpu_s(), _CPU_TARGET_OF_FLOOR),
    ):
        print(f"{name} {limit}: {value:.3f} {'reached' if value <= limit else 'NOT REACHED'}")
