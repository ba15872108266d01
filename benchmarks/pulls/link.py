"""`layercast-bench link`: on shaped links, how much longer does a cold pull through one peer take than a direct one?

Origin, supernode and node each in a network namespace of its own behind tc tbf. Rounds are interleaved, direct and
through the peer, each with a fresh blob so that every pull is cold; medians are compared. Needs root.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
from typing import TYPE_CHECKING

from benchmarks.harness.cluster import Cluster
from benchmarks.harness.netns import Lab, Node
from benchmarks.pulls.client import BlobPull
from benchmarks.pulls.common import (
    REPOSITORY,
    checked,
    console,
    counted_origin,
    finish,
    random_blob,
    rate_flag,
    size_flag,
    whole,
)
from benchmarks.report import print_table
from proto.errors import LocalError
from proto.pieces import PieceLayout

if TYPE_CHECKING:
    import argparse

HELP = "cold pull of one blob through one peer against a direct pull, on links shaped by tc (root)"

_ELAPSED_RATIO_MAX = 1.05
_FIRST_BYTE_GRACE_S = 0.050


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--size", default="100MB", metavar="SIZE", help="of the blob [100MB]")
    parser.add_argument("--rate", default="100Mbit", metavar="RATE", help="of every link, each way [100Mbit]")
    parser.add_argument("--rounds", default="5", metavar="N", help="interleaved rounds [5]")
    parser.add_argument("--seed", default="1", metavar="S", help="of the random content [1]")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 if a limit is not kept."""
    if os.geteuid() != 0:
        raise LocalError("network namespaces need root: run it with sudo")
    size, rate = size_flag(arguments), rate_flag(arguments)
    rounds = checked("--rounds", arguments.rounds, whole, 1, "at least 1")
    rng = random.Random(checked("--seed", arguments.seed, whole, 0, "a whole number"))
    direct: list[BlobPull] = []
    through: list[BlobPull] = []
    with Lab() as lab:
        origin_node, supernode_node, node = (lab.add_node() for _ in range(3))
        with counted_origin(origin_node.name, origin_node.address) as (registry, proxy, directory):
            with console.status("filling the origin"), registry.writer() as writer:
                digests = [writer.push_blob_bytes(REPOSITORY, random_blob(rng, size)) for _ in range(2 * rounds)]
            for shaped in lab.nodes:
                shaped.shape(rate * 8)
            with Cluster(directory / "cluster", proxy.address, supernode_node=supernode_node) as cluster:
                peer = cluster.add_peer(node)
                cluster.wait_for_sessions(1)
                for number in range(rounds):
                    with console.status(f"round {number + 1} of {rounds}"):
                        direct.append(_pull(node, proxy.address, digests[2 * number]))
                        through.append(_pull(node, peer.proxy, digests[2 * number + 1]))
    return _report(arguments, size, rate, direct, through)


def _pull(node: Node, address: str, digest: str) -> BlobPull:
    words = [sys.executable, "-m", "benchmarks.pulls.client", address, REPOSITORY, digest]
    return BlobPull(**json.loads(node.run(words, timeout_s=600.0).stdout))


def _report(
    arguments: argparse.Namespace, size: int, rate: int, direct: list[BlobPull], through: list[BlobPull]
) -> int:
    layout = PieceLayout.of(size)
    piece_s = min(size, layout.piece_size_bytes) / rate
    ratios = [a.elapsed_s / b.elapsed_s for a, b in zip(through, direct, strict=True)]
    ratio = statistics.median(ratios)
    later_s = statistics.median(a.first_byte_s - b.first_byte_s for a, b in zip(through, direct, strict=True))
    later_max_s = _FIRST_BYTE_GRACE_S + 2 * piece_s
    rows = [
        [
            name,
            f"{statistics.median(p.elapsed_s for p in pulls):.3f}",
            f"{1000 * statistics.median(p.first_byte_s for p in pulls):.0f}",
        ]
        for name, pulls in (("direct", direct), ("through one peer", through))
    ]
    print_table(f"{size:,} bytes on links of {arguments.rate}", ["pull", "seconds", "first byte, ms"], rows)
    print(
        f"through / direct: median {ratio:.3f}, from {min(ratios):.3f} to {max(ratios):.3f} "
        f"(limit {_ELAPSED_RATIO_MAX})"
    )
    print(f"first byte later by {later_s * 1000:.0f} ms (limit 50 ms + two piece times = {later_max_s * 1000:.0f} ms)")
    problems = []
    if not all(pull.digest_right for pull in direct + through):
        problems.append("a pull ended with a wrong digest")
    if ratio > _ELAPSED_RATIO_MAX:
        problems.append(f"through / direct is {ratio:.3f}: at most {_ELAPSED_RATIO_MAX}")
    if later_s > later_max_s:
        problems.append(f"the first byte comes {later_s * 1000:.0f} ms later: at most {later_max_s * 1000:.0f}")
    document: dict[str, object] = {
        "size_bytes": size,
        "rate_bytes_s": rate,
        "piece_s": piece_s,
        "elapsed_ratios": ratios,
        "elapsed_ratio": ratio,
        "first_byte_later_s": later_s,
        "direct_s": [pull.elapsed_s for pull in direct],
        "through_s": [pull.elapsed_s for pull in through],
    }
    return finish(document, arguments.json, problems)
