"""What lazy clients cost: the first byte of a cold layer's footer, and the origin's bytes for ranges at random places.

Real processes on loopback behind an origin of a given rate. Readers check every byte that they get.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from benchmarks.flags import count, rate
from proto.config.values import parse_size
from proto.errors import LayercastError
from proto.pieces import KIB, piece_size_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.cluster.services import Peer

    Range = tuple[int, int]

HELP: Final = "footer and random ranges of cold layers: first byte, and bytes that the origin sends"
REPOSITORY: Final = "library/lazy"
# As eStargz has it at a layer's end.
FOOTER_BYTES: Final = 51
RANGE_BYTES: Final = 64 * KIB
READERS: Final = 4
RANGES_A_READER: Final = 8
FOOTERS: Final = 5
TIMEOUT_S: Final = 60.0
# What is wanted: see print_figures().
FOOTER_LATER_S: Final = 0.1
AMPLIFIED_MAX: Final = 1.2
PIECES_A_READER: Final = 2


@dataclass(frozen=True, slots=True)
class Reads:
    """What the readers of some nodes got of one blob, and what the origin sent for it."""

    elapsed_s: float
    read_bytes: int
    slowest_s: float
    origin_bytes: int
    repeated_bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", default="20", metavar="N", help="that read the same, 1 to 20 [20]")
    parser.add_argument("--size", default="64MiB", metavar="SIZE", help="of each layer [64MiB]")
    parser.add_argument("--rate", default="64mbit", metavar="RATE", help="of the origin [64mbit]")
    parser.add_argument("--seed", default="1", metavar="S", help="of places and contents [1]")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures; status 1 where one is missed. Raises LayercastError."""
    nodes = count("--nodes", arguments.nodes, 20, 1, 20)
    origin_bytes_s = rate("--rate", arguments.rate, 1)
    try:
        size_bytes = parse_size(arguments.size)
    except ValueError as error:
        raise LayercastError(f"--size {arguments.size!r}: {error}") from None
    rng = random.Random(count("--seed", arguments.seed, 1, 0))
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="layercast-lazy-")))
        registry = running.enter_context(Registry(folder / "registry"))
        origin = running.enter_context(CountingProxyProcess(registry.host_port))
        cluster = running.enter_context(Cluster(folder, origin.address, supernode_flags=["--store-free-floor", "0"]))
        peers = cluster.add_peers([None] * nodes, extra=["--store-free-floor", "0"])
        cluster.wait_for_sessions(nodes)
        bench = LazyBench(registry, origin, rng, size_bytes)
        bench.push(2 + 2 * FOOTERS)
        origin.set_rate(origin_bytes_s)
        direct_s = bench.footer_s(origin.address)
        through_s = bench.footer_s(peers[0].proxy)
        one, all_nodes = bench.reads(peers[:1]), bench.reads(peers)
    return print_figures(size_bytes, nodes, direct_s, through_s, one, all_nodes)


def print_figures(size_bytes: int, nodes: int, direct_s: float, through_s: float, one: Reads, all_nodes: Reads) -> int:
    """A line for each. The pieces that count are as a blob of this size is usually cut."""
    most_bytes = int(AMPLIFIED_MAX * one.read_bytes) + READERS * PIECES_A_READER * piece_size_for(size_bytes)
    met = [
        through_s <= direct_s + FOOTER_LATER_S,
        one.origin_bytes <= most_bytes,
        all_nodes.repeated_bytes == 0,
    ]
    print(f"footer, first byte: {through_s * 1000:.0f} ms, directly {direct_s * 1000:.0f} ms (wanted: 100 ms more)")
    for count_of, found in ((1, one), (nodes, all_nodes)):
        print(
            f"{count_of} nodes, each {found.read_bytes // count_of:,} bytes: {found.elapsed_s:.2f} s, slowest range "
            f"{found.slowest_s * 1000:.0f} ms; origin: {found.origin_bytes:,} bytes, {found.repeated_bytes:,} again"
        )
    print(f"wanted of 1 node: at most {most_bytes:,} bytes; of {nodes}: none again")
    print("met" if all(met) else f"missed: {[number for number, each in enumerate(met, 1) if not each]}")
    return 0 if all(met) else 1


class LazyBench:
    """Pushes random blobs, and reads each of them once."""

    def __init__(self, registry: Registry, origin: CountingProxyProcess, rng: random.Random, size_bytes: int) -> None:
        self._registry = registry
        self._origin = origin
        self._rng = rng
        self._size_bytes = size_bytes
        self._cold: list[tuple[str, bytes]] = []

    def push(self, blobs: int) -> None:
        with self._registry.writer() as writer:
            for _ in range(blobs):
                content = self._rng.randbytes(self._size_bytes)
                self._cold.append((writer.push_blob_bytes(REPOSITORY, content), content))

    def footer_s(self, address: str) -> float:
        """Median time until the first byte of a cold blob's footer."""
        times_s = []
        for _ in range(FOOTERS):
            digest, content = self._cold.pop()
            times_s.append(read(address, digest, content, (len(content) - FOOTER_BYTES, len(content))))
        return statistics.median(times_s)

    def reads(self, peers: Sequence[Peer]) -> Reads:
        """READERS at each node read RANGES_A_READER ranges one after the other, the same ones at all nodes."""
        digest, content = self._cold.pop()
        last = len(content) - RANGE_BYTES
        places = [[self._rng.randint(0, last) for _ in range(RANGES_A_READER)] for _ in range(READERS)]

        def reader(peer: Peer, starts: list[int]) -> float:
            return max(read(peer.proxy, digest, content, (start, start + RANGE_BYTES)) for start in starts)

        self._origin.reset()
        began_s = time.monotonic()
        with ThreadPoolExecutor(len(peers) * READERS) as readers:
            slowest = [readers.submit(reader, peer, starts) for peer in peers for starts in places]
            slowest_s = max(each.result() for each in slowest)
        elapsed_s = time.monotonic() - began_s
        ledger = self._origin.ledger()
        read_bytes = len(peers) * READERS * RANGES_A_READER * RANGE_BYTES
        return Reads(elapsed_s, read_bytes, slowest_s, ledger.blob_bytes(digest), ledger.repeated_bytes(digest))


def read(address: str, digest: str, content: bytes, wanted: Range) -> float:
    """Read one range on a connection of its own, and compare it; seconds to its first byte. Raises LayercastError."""
    start, end = wanted
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        began_s = time.monotonic()
        connection.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}", headers={"Range": f"bytes={start}-{end - 1}"})
        answer = connection.getresponse()
        first = answer.read(1)
        first_byte_s = time.monotonic() - began_s
        if (answer.status, first + answer.read()) != (206, content[start:end]):
            raise LayercastError(f"bytes {start}-{end - 1} came with status {answer.status}, and not as they are")
    return first_byte_s
