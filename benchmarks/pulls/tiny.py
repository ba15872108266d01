"""`layercast-bench tiny`: N nodes ask for one tiny blob at once; how long after the origin's answer has the last it?

Loopback, real processes; the origin's answer is the moment the counting proxy sent the blob's first byte.
"""

from __future__ import annotations

import concurrent.futures
import random
import statistics
import threading
from typing import TYPE_CHECKING

from benchmarks.harness.cluster import Cluster
from benchmarks.pulls.client import BlobPull, pull_blob
from benchmarks.pulls.common import REPOSITORY, checked, console, counted_origin, finish, random_blob, size_flag, whole
from benchmarks.report import print_table

if TYPE_CHECKING:
    import argparse

HELP = "a tiny blob on N nodes at once: from the origin's answer to the last node"

_LAST_NODE_MAX_S = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--nodes", default="20", metavar="N", help="peers [20]")
    parser.add_argument("--size", default="500", metavar="SIZE", help="of the blob [500]")
    parser.add_argument("--rounds", default="5", metavar="N", help="rounds, a fresh blob each [5]")
    parser.add_argument("--seed", default="1", metavar="S", help="of the random content [1]")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 if the last node comes too late or the origin was asked twice."""
    nodes = checked("--nodes", arguments.nodes, whole, 1, "at least 1")
    rounds = checked("--rounds", arguments.rounds, whole, 1, "at least 1")
    size = size_flag(arguments)
    rng = random.Random(checked("--seed", arguments.seed, whole, 0, "a whole number"))
    lasts_s: list[float] = []
    problems: list[str] = []
    with counted_origin() as (registry, proxy, directory):
        with registry.writer() as writer:
            digests = [writer.push_blob_bytes(REPOSITORY, random_blob(rng, size)) for _ in range(rounds)]
        with Cluster(directory / "cluster", proxy.address) as cluster:
            with console.status(f"starting {nodes} peers"):
                cluster.add_peers([None] * nodes)
                cluster.wait_for_sessions(nodes)
            for digest in digests:
                pulls = _pull_at_once([peer.proxy for peer in cluster.peers], digest)
                ledger = proxy.ledger()
                answered_s = min(exchange.first_byte_s for exchange in ledger.of_blob(digest))
                lasts_s.append(max(pull.ended_at_s for pull in pulls) - answered_s)
                if ledger.gets(digest) != 1 or not all(pull.digest_right for pull in pulls):
                    problems.append(f"{digest[:19]}: {ledger.gets(digest)} GETs, or a wrong digest")
    last_s = statistics.median(lasts_s)
    rows = [[str(number + 1), f"{value * 1000:.0f}"] for number, value in enumerate(lasts_s)]
    print_table(f"{size} bytes on {nodes} nodes", ["round", "last node, ms after the origin's answer"], rows)
    print(f"median {last_s * 1000:.0f} ms (limit {_LAST_NODE_MAX_S * 1000:.0f} ms)")
    if last_s > _LAST_NODE_MAX_S:
        problems.append(f"the last node has it after {last_s:.3f} s: at most {_LAST_NODE_MAX_S}")
    return finish({"nodes": nodes, "size_bytes": size, "last_node_s": lasts_s}, arguments.json, problems)


def _pull_at_once(proxies: list[str], digest: str) -> list[BlobPull]:
    barrier = threading.Barrier(len(proxies))

    def one(proxy: str) -> BlobPull:
        barrier.wait()
        return pull_blob(proxy, REPOSITORY, digest)

    with concurrent.futures.ThreadPoolExecutor(len(proxies)) as pool:
        return list(pool.map(one, proxies))
