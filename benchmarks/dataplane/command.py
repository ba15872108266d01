"""`layercast-bench dataplane`: what it costs to move a blob from one peer's disk to another's, way by way.

One run on loopback: each round moves the same blob once by every way, interleaved, in two fresh processes. All
files lie in one temporary folder, on one file system; the source is in the page cache, a target is new each time
and deleted after. What counts is the CPU of both processes (user and system, from the moment both are ready) and
the time until the receiver has hashed, written and checked the blob. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.dataplane.content import hash_costs, make_source
from benchmarks.dataplane.processes import Measured, transfer
from benchmarks.report import machine, print_table, write_json
from proto.errors import ConfigError
from proto.pieces import KIB, MIB

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Job

HELP = "CPU-seconds per GiB and GiB/s of our transport, a bare floor, aiohttp and libtorrent"

_GIB: Final = 1024 * MIB
_UNITS: Final = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": _GIB}
_SIZE_MIN_BYTES: Final = MIB
_SPARE_BYTES: Final = 64 * MIB
_FLOOR_BUFFERS: Final = (64 * KIB, 256 * KIB, MIB)
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
    parser.add_argument("--size", type=size_bytes, default=_GIB, metavar="SIZE", help="of the blob (1GiB)")
    parser.add_argument("--rounds", type=rounds, default=5, metavar="N", help="interleaved rounds (5)")
    parser.add_argument("--parallel", type=rounds, default=2, metavar="N", help="our fetches at a time (2)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the blob's random bytes (1)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the files lie (the system's temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")


def size_bytes(text: str) -> int:
    """A whole number with KiB, MiB or GiB. Raises ArgumentTypeError."""
    found = re.fullmatch(r"([0-9]{1,12})(|KiB|MiB|GiB)", text)
    if not found or int(found[1]) * _UNITS[found[2]] < _SIZE_MIN_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size of at least 1MiB, such as 512MiB or 1GiB")
    return int(found[1]) * _UNITS[found[2]]


def rounds(text: str) -> int:
    """1 to 100. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 100")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep."""
    folder = _make_folder(arguments)
    try:
        _tell(f"files in {folder}; making {_size_text(arguments.size)} of random bytes")
        job = replace(make_source(folder, arguments.size, arguments.seed), parallel=arguments.parallel)
        rows, hashes = _measure(job, arguments.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    document = _figures(arguments, rows, hashes)
    _print(document)
    if arguments.json is not None:
        write_json(arguments.json, document)
    return 0


def _make_folder(arguments: argparse.Namespace) -> Path:
    """Raises ConfigError for what would fail after minutes of measuring."""
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {arguments.json}: its folder does not exist; make it first")
    try:
        folder = Path(tempfile.mkdtemp(prefix="layercast-dataplane-", dir=arguments.dir))
    except OSError as error:
        raise ConfigError(f"--dir {arguments.dir}: {error.strerror}; name a folder that can be written") from None
    free = shutil.disk_usage(folder).free
    # The source and one target at a time.
    if free < 2 * arguments.size + _SPARE_BYTES:
        folder.rmdir()
        raise ConfigError(f"{folder.parent} has {free} bytes free, too few for two blobs: use --dir or --size")
    return folder


def _measure(job: Job, count: int) -> tuple[list[Row], dict[str, float]]:
    """Every way's runs, the floor at its best first, and what hashing alone costs."""
    hashes: list[dict[str, float]] = []
    floors = [Row(f"floor, {buffer // KIB} KiB buffer", "floor", buffer) for buffer in _FLOOR_BUFFERS]
    rows = [*floors, Row("layercast", "layercast"), Row("aiohttp", "aiohttp"), Row("libtorrent", "torrent")]
    for number in range(count):
        hashes.append(hash_costs())
        for row in rows:
            measured = transfer(row.way, replace(job, buffer_bytes=row.buffer_bytes))
            row.runs.append(measured)
            gib = job.size_bytes / _GIB
            cpu, elapsed = measured.cpu_s("all") / gib, measured.elapsed_s("all") / gib
            _tell(f"round {number + 1}/{count}: {row.name}: {cpu:.2f} CPU-s/GiB, {1 / elapsed:.2f} GiB/s")
    parts = [
        Row("layercast, when the last piece is held", "layercast", part="pieces", runs=rows[-3].runs),
        Row("libtorrent, without the blob's sha256", "torrent", part="pieces", runs=rows[-1].runs),
    ]
    floor = min(floors, key=Row.cpu_s)
    best = replace(floor, name=f"floor (its best: {floor.buffer_bytes // KIB} KiB)")
    medians = {name: statistics.median(each[name] for each in hashes) for name in hashes[0]}
    return [best, *rows[len(floors) :], *parts, *floors], medians


def _figures(arguments: argparse.Namespace, rows: list[Row], hashes: dict[str, float]) -> dict[str, object]:
    gib = arguments.size / _GIB
    floor_cpu = rows[0].cpu_s() / gib
    ways = []
    for row in rows:
        cpu = row.cpu_s() / gib
        ways.append(
            {
                "name": row.name,
                "cpu_s_per_gib": cpu,
                "sender_cpu_s_per_gib": statistics.median(each.sender.cpu_s for each in row.runs) / gib,
                "gib_per_s": gib / row.elapsed_s(),
                "cpu_over_floor": cpu / floor_cpu,
                "lowest_cpu_s_per_gib": min(each.cpu_s(row.part) for each in row.runs) / gib,
                "runs_cpu_s": [each.cpu_s(row.part) for each in row.runs],
                "runs_elapsed_s": [each.elapsed_s(row.part) for each in row.runs],
            }
        )
    ours, torrent = rows[1].cpu_s(), rows[3].cpu_s()
    return {
        "benchmark": "dataplane",
        "machine": machine(),
        "size_bytes": arguments.size,
        "rounds": arguments.rounds,
        "parallel": arguments.parallel,
        "seed": arguments.seed,
        "ways": ways,
        "hash_cpu_s_per_gib": hashes,
        "ours_over_floor": ours / rows[0].cpu_s(),
        "ours_over_floor_at_most": _CPU_TARGET_OF_FLOOR,
        "ours_over_libtorrent": ours / torrent,
        "ours_over_libtorrent_below": _CPU_TARGET_OF_TORRENT,
    }


def _print(document: dict[str, object]) -> None:
    ways, hashes, where = document["ways"], document["hash_cpu_s_per_gib"], document["machine"]
    assert isinstance(ways, list)
    assert isinstance(hashes, dict)
    assert isinstance(where, dict)
    rows = [
        (
            way["name"],
            f"{way['cpu_s_per_gib']:.2f}",
            f"{way['lowest_cpu_s_per_gib']:.2f}",
            f"{way['sender_cpu_s_per_gib']:.2f}",
            f"{way['gib_per_s']:.3f}",
            f"{way['cpu_over_floor']:.3f}",
        )
        for way in ways
    ]
    columns = ("way", "CPU-s/GiB", "lowest", "of it sender", "GiB/s", "x floor")
    print_table(f"One blob of {_size_text(document['size_bytes'])}, median of {document['rounds']}", columns, rows)
    print(f"hashing alone, CPU-s/GiB: sha256 {hashes['sha256']:.2f}, blake3 {hashes['blake3']:.2f}")
    instructions = "with" if where["sha_instructions"] else "without"
    print(f"{where['processor']}, {where['cores']} cores, {instructions} SHA instructions")
    for text, value, limit in (
        ("layercast / floor, at most", document["ours_over_floor"], _CPU_TARGET_OF_FLOOR),
        ("layercast / libtorrent, below", document["ours_over_libtorrent"], _CPU_TARGET_OF_TORRENT),
    ):
        assert isinstance(value, float)
        print(f"{text} {limit}: {value:.3f} {'reached' if value <= limit else 'NOT REACHED'}")


def _size_text(size: object) -> str:
    assert isinstance(size, int)
    for unit in ("GiB", "MiB", "KiB"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]} {unit}"
    return f"{math.ceil(size)} bytes"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
