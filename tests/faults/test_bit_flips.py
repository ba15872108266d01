"""Many flipped bits over the stores of nodes and their supernode: what clients get, what the origin is asked.

LAYERCAST_FLIPS sets how many, LAYERCAST_FLIP_NODES over how many nodes. What checking costs is printed.
"""

from __future__ import annotations

import math
import os
import random
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import cpu_s, wait_until
from tests.support.counts import assert_becomes
from tests.support.held import stored_layout
from tests.support.pullers import pull
from tests.support.rot import flip, stored_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer, Service
    from proto.pieces import PieceLayout

pytestmark = pytest.mark.client("docker-registry")

NODES = int(os.environ.get("LAYERCAST_FLIP_NODES", "6"))
FLIPS = int(os.environ.get("LAYERCAST_FLIPS", "200"))
SIZE_BYTES = 4 << 20
BLOBS = 4
FLIPS_A_ROUND = 25
FLIP_EVERY_S = 0.02


def start_nodes(cluster: Cluster, *flags: str) -> list[Service]:
    """All peers, and the supernode, with the same flags."""
    cluster.supernode.stop()
    cluster.supernode.extra += flags
    cluster.supernode.start()
    peers = cluster.add_peers([None] * NODES, extra=flags)
    cluster.wait_for_sessions(NODES)
    return [cluster.supernode, *peers]


def pull_everywhere(peers: list[Peer], digests: list[str]) -> int:
    """Each peer's client pulls each blob, all at once. How many answers ended well; none may be whole and wrong."""
    asked = [(peer, digest) for peer in peers for digest in digests]
    with ThreadPoolExecutor(len(peers)) as clients:
        answers = list(clients.map(lambda each: pull(each[0].proxy, each[1]), asked))
    wrong = [answer for (_, digest), answer in zip(asked, answers, strict=True) if answer.sha256 != digest]
    assert [answer for answer in wrong if answer.complete] == []
    return len(answers) - len(wrong)


def layouts_of(cluster: Cluster, digests: list[str]) -> list[PieceLayout]:
    """How the supernode cut these blobs: by what links carry, as far as it knew."""
    return [stored_layout(cluster.supernode.data_dir, digest) for digest in digests]


def rotten_pieces(service: Service) -> int:
    """By whoever found them."""
    found = ("client", "peer", "scrub", "digest", "complaint", "operator")
    metrics = service.metrics()
    return sum(int(metrics.value("layercast_rotten_pieces_total", found_by=each)) for each in found)


def cpu_of(services: list[Service]) -> float:
    """All that they used so far, s."""
    return sum(cpu_s(service.process.pid) for service in services)


def flip_in(service: Service, digest: str, offset: int) -> bool:
    """False for a blob that is just being completed there again."""
    try:
        flip(stored_path(service.data_dir, digest), offset)
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize("at_rest", [True, False], ids=["at rest", "while it is sent"])
def test_flips_while_nodes_pull_and_verify_every_time(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], at_rest: bool
) -> None:
    """Every answer is whole and right, also of the blobs that are being sent."""
    rng = random.Random(13)
    digests = [push(SIZE_BYTES) for _ in range(BLOBS)]
    services = start_nodes(cluster, "--verify-after", "0")
    assert pull_everywhere(cluster.peers, digests) == NODES * BLOBS
    flips = pulls = ended_well = 0
    used_s = -cpu_of(services)
    while flips < FLIPS:
        pulled = digests[pulls % BLOBS]
        flipped = [digest for digest in digests if (digest != pulled) is at_rest]
        with ThreadPoolExecutor(1) as clients:
            pulling = clients.submit(pull_everywhere, cluster.peers, [pulled])
            for _ in range(min(FLIPS_A_ROUND, FLIPS - flips)):
                flips += flip_in(rng.choice(services), rng.choice(flipped), rng.randrange(SIZE_BYTES))
                # Over the time that the pull takes.
                wait([pulling], timeout=0.0 if at_rest else FLIP_EVERY_S)
            ended_well += pulling.result()
        pulls += 1
    used_s += cpu_of(services)
    assert ended_well == pulls * NODES
    rotten = sum(rotten_pieces(service) for service in services)
    assert rotten > flips // 10, "the test tested nothing"
    sent_gib = pulls * NODES * SIZE_BYTES / (1 << 30)
    again_bytes = sum(origin.ledger().blob_bytes(digest) - SIZE_BYTES for digest in digests)
    longest_bytes = max(layout.piece_size_bytes for layout in layouts_of(cluster, digests))
    print(
        f"{flips} flips, {rotten} rotten pieces, {again_bytes} bytes asked of the origin again; "
        f"{ended_well} of {pulls * NODES} pulls ended well; CPU {used_s / sent_gib:.2f} s a GiB sent"
    )
    assert again_bytes <= rotten * longest_bytes


def test_one_pass_of_the_scrub_finds_every_flip(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digests = [push(SIZE_BYTES) for _ in range(BLOBS)]
    services = start_nodes(cluster)
    assert pull_everywhere(cluster.peers, digests) == NODES * BLOBS
    # Not all the time: many nodes share this machine's processors.
    flags = ["--scrub-interval", f"{max(1, NODES // 2)}s", "--scrub-rate", "1GiB"]
    layouts = layouts_of(cluster, digests)
    in_a_blob = min(*(layout.count for layout in layouts), math.ceil(FLIPS / (len(services) * BLOBS)))
    rotten = [
        [random.Random(number).sample(range(layout.count), in_a_blob) for layout in layouts]
        for number in range(len(services))
    ]
    for service, flipped in zip(services, rotten, strict=True):
        for digest in digests:
            wait_until(stored_path(service.data_dir, digest).exists, "the blob under its final name")
        service.stop()
        for digest, layout, pieces in zip(digests, layouts, flipped, strict=True):
            for piece in pieces:
                flip(stored_path(service.data_dir, digest), layout.offset(piece) + piece)
        service.extra += flags
    for service in services:
        service.start()
    cluster.wait_for_sessions(NODES)
    assert_becomes(lambda: [rotten_pieces(service) for service in services], [in_a_blob * BLOBS] * len(services))
    assert pull_everywhere(cluster.peers, digests) == NODES * BLOBS
    again_bytes = [origin.ledger().blob_bytes(digest) - SIZE_BYTES for digest in digests]
    print(f"{in_a_blob * BLOBS * len(services)} rotten pieces found; bytes asked of the origin again: {again_bytes}")
    for number, layout in enumerate(layouts):
        somewhere = set().union(*(flipped[number] for flipped in rotten))
        assert again_bytes[number] <= len(somewhere) * layout.piece_size_bytes
