"""`layercast-bench origin`: N cold nodes pull one image at once; what does the origin send? Counted, not estimated.

Real supernode, peers and docker-registry on loopback, a counting proxy before the registry. The image has five
layers from 500 B to 100 MB (scaled by --size). What must come out: every byte of a blob exactly once.
"""

from __future__ import annotations

import concurrent.futures
import random
from typing import TYPE_CHECKING

from benchmarks.harness.cluster import Cluster
from benchmarks.pulls.client import BlobPull, pull_blob
from benchmarks.pulls.common import REPOSITORY, checked, console, counted_origin, finish, random_blob, size_flag, whole
from benchmarks.report import print_table

if TYPE_CHECKING:
    import argparse

HELP = "N cold nodes pull a five-layer image at once: GETs and bytes that the origin sent, blob by blob"

_LAYERS_AT_A_TIME = 3
# Parts of --size (100 MB): 500 B, 50 kB, 2 MB, 20 MB and the whole.
_LARGEST_PART = 1.0
_OTHER_PARTS = (5e-6, 5e-4, 0.02, 0.2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--nodes", default="20", metavar="N", help="peers [20]")
    parser.add_argument("--size", default="100MB", metavar="SIZE", help="of the largest of the five layers [100MB]")
    parser.add_argument("--seed", default="1", metavar="S", help="of the random content [1]")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 if the origin sent any byte twice or a digest is wrong."""
    nodes = checked("--nodes", arguments.nodes, whole, 1, "at least 1")
    largest_bytes = size_flag(arguments)
    rng = random.Random(checked("--seed", arguments.seed, whole, 0, "a whole number"))
    sizes = [max(1, round(largest_bytes * part)) for part in (*_OTHER_PARTS, _LARGEST_PART)]
    with counted_origin() as (registry, proxy, directory):
        with console.status("filling the origin"), registry.writer() as writer:
            blobs = {writer.push_blob_bytes(REPOSITORY, random_blob(rng, size)): size for size in sizes}
        with console.status(f"starting {nodes} peers"):
            cluster = Cluster(directory / "cluster", proxy.address)
        with cluster:
            with console.status(f"starting {nodes} peers"):
                cluster.add_peers([None] * nodes)
                cluster.wait_for_sessions(nodes)
            pulls = _pull_all([peer.proxy for peer in cluster.peers], list(blobs))
            node_bytes = {source: cluster.received_bytes(source) for source in ("peer", "seed", "origin")}
        ledger = proxy.ledger()
    rows = []
    problems = []
    for digest, size in blobs.items():
        sent, repeated = ledger.blob_bytes(digest), ledger.repeated_bytes(digest)
        rows.append(
            [digest[:19], f"{size:,}", str(ledger.gets(digest)), str(ledger.heads(digest)), f"{sent / size:.3f}"]
        )
        if sent != size or repeated:
            problems.append(f"{digest[:19]}: the origin sent {sent} bytes of {size}, {repeated} of them twice")
    print_table(f"{nodes} nodes at once", ["blob", "bytes", "GETs", "HEADs", "bytes sent / size"], rows)
    wrong = sum(not pull.digest_right for pull in pulls)
    last_s = max(pull.ended_at_s for pull in pulls) - min(pull.ended_at_s - pull.elapsed_s for pull in pulls)
    total = nodes * sum(sizes)
    print(
        f"{len(pulls)} pulls, {wrong} wrong digests, last node after {last_s:.2f} s, "
        f"{total / 1e6 / last_s:.0f} MB/s in all"
    )
    if wrong:
        problems.append(f"{wrong} pulls ended with a wrong digest")
    blob_rows = [
        {"digest": d, "size_bytes": s, "gets": ledger.gets(d), "bytes": ledger.blob_bytes(d)} for d, s in blobs.items()
    ]
    document = {"nodes": nodes, "blobs": blob_rows, "makespan_s": last_s, "received_bytes": node_bytes}
    return finish(document, arguments.json, problems)


def _pull_all(proxies: list[str], digests: list[str]) -> list[BlobPull]:
    """Every node pulls every blob, three at a time as docker does; all nodes begin at once."""
    with (
        console.status(f"{len(proxies)} nodes pull {len(digests)} blobs"),
        concurrent.futures.ThreadPoolExecutor(len(proxies) * _LAYERS_AT_A_TIME) as pool,
    ):
        started = [pool.submit(pull_blob, proxy, REPOSITORY, digest) for digest in digests for proxy in proxies]
        return [future.result() for future in started]
