"""`layercast-bench memory`: how much memory do a peer and the supernode ever hold while a large blob passes?

Two peers pull the blob at once through one supernode on loopback, then both clients pull it again from the store.
VmHWM of each process, which the kernel keeps, is the figure.
"""

from __future__ import annotations

import concurrent.futures
import random
from typing import TYPE_CHECKING

from benchmarks.harness.cluster import Cluster
from benchmarks.pulls.client import pull_blob
from benchmarks.pulls.common import REPOSITORY, checked, console, counted_origin, finish, size_flag, whole
from benchmarks.report import print_table
from proto.ids import Digest
from proto.pieces import MIB

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from benchmarks.harness.registry import Registry

HELP = "peak memory of a peer that pulls and serves a large blob, and of the supernode"

_PEER_MAX_BYTES = 120 * MIB
_SUPERNODE_MAX_BYTES = 150 * MIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--size", default="2GiB", metavar="SIZE", help="of the blob [2GiB]")
    parser.add_argument("--seed", default="1", metavar="S", help="of the random content [1]")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 if a process grew beyond its limit."""
    size = size_flag(arguments)
    rng = random.Random(checked("--seed", arguments.seed, whole, 0, "a whole number"))
    peaks: dict[str, int] = {}
    with counted_origin() as (registry, proxy, directory):
        with console.status("filling the origin"):
            digest = _push(registry, directory / "blob", rng, size)
        with Cluster(directory / "cluster", proxy.address) as cluster:
            cluster.add_peers([None, None])
            cluster.wait_for_sessions(2)
            served = 0.0
            for label in ("cold", "from the store"):
                with console.status(f"two nodes pull {size >> 20} MiB, {label}"):
                    right = _pull_twice([peer.proxy for peer in cluster.peers], digest)
            for peer in cluster.peers:
                peaks[peer.name] = peer.process.memory_peak_bytes()
                served += peer.metrics().value("layercast_uploaded_bytes_total")
            peaks["supernode"] = cluster.supernode.process.memory_peak_bytes()
    rows = [[name, f"{peak / MIB:.1f}"] for name, peak in peaks.items()]
    print_table(f"{size:,} bytes, pulled and served", ["process", "VmHWM, MiB"], rows)
    print(f"the peers served each other {served / MIB:.0f} MiB")
    problems = [] if right else ["a pull ended with a wrong digest"]
    for name, peak in peaks.items():
        limit = _SUPERNODE_MAX_BYTES if name == "supernode" else _PEER_MAX_BYTES
        if peak > limit:
            problems.append(f"{name} held {peak / MIB:.0f} MiB: at most {limit / MIB:.0f}")
    return finish({"size_bytes": size, "peak_bytes": peaks, "served_bytes": served}, arguments.json, problems)


def _push(registry: Registry, path: Path, rng: random.Random, size: int) -> str:
    digest = Digest.of(b"").hasher()
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            part = rng.randbytes(min(MIB, size - at))
            digest.update(part)
            file.write(part)
    name = f"sha256:{digest.hexdigest()}"
    with registry.writer() as writer:
        writer.push_blob_file(REPOSITORY, path, name)
    path.unlink()
    return name


def _pull_twice(proxies: list[str], digest: str) -> bool:
    with concurrent.futures.ThreadPoolExecutor(len(proxies)) as pool:
        return all(p.digest_right for p in pool.map(lambda proxy: pull_blob(proxy, REPOSITORY, digest), proxies))
