"""Many flipped bits over the stores of six nodes and their supernode: what clients get, what the origin is asked."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from tests.support.counts import assert_becomes
from tests.support.pullers import pull
from tests.support.rot import flip, stored_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer, Service

pytestmark = pytest.mark.client("docker-registry")

NODES = 6
SIZE_BYTES = 4 << 20
PIECE_BYTES = 256 << 10
PIECES = SIZE_BYTES // PIECE_BYTES
BLOBS = 4
FLIPS_A_ROUND = 25


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


def rotten_pieces(service: Service) -> int:
    """By whoever found them."""
    found = ("client", "peer", "scrub", "digest", "complaint", "operator")
    metrics = service.metrics()
    return sum(int(metrics.value("layercast_rotten_pieces_total", found_by=each)) for each in found)


def flip_in(service: Service, digest: str, offset: int) -> bool:
    """False for a blob that is just being completed there again."""
    try:
        flip(stored_path(service.data_dir, digest), offset)
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize("flips_wanted", [pytest.param(1000, id="at rest"), pytest.param(200, id="while it is sent")])
def test_flips_while_six_nodes_pull_and_verify_every_time(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], flips_wanted: int
) -> None:
    """Of blobs that nobody reads then, every answer is whole and right; of those that are being sent some end short."""
    rng, at_rest = random.Random(13), flips_wanted == 1000
    digests = [push(SIZE_BYTES) for _ in range(BLOBS)]
    services = start_nodes(cluster, "--verify-after", "0")
    assert pull_everywhere(cluster.peers, digests) == NODES * BLOBS
    flips = pulls = ended_well = 0
    while flips < flips_wanted:
        pulled = digests[pulls % BLOBS]
        flipped = [digest for digest in digests if (digest != pulled) is at_rest]
        with ThreadPoolExecutor(1) as clients:
            pulling = clients.submit(pull_everywhere, cluster.peers, [pulled])
            for _ in range(FLIPS_A_ROUND):
                flips += flip_in(rng.choice(services), rng.choice(flipped), rng.randrange(SIZE_BYTES))
            ended_well += pulling.result()
        pulls += 1
    assert ended_well == pulls * NODES or not at_rest
    rotten = sum(rotten_pieces(service) for service in services)
    assert rotten > flips // 10, "the test tested nothing"
    for digest in digests:
        assert origin.ledger().blob_bytes(digest) <= SIZE_BYTES + rotten * PIECE_BYTES


def test_one_pass_of_the_scrub_finds_every_flip(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digests = [push(SIZE_BYTES) for _ in range(2)]
    services = start_nodes(cluster)
    assert pull_everywhere(cluster.peers, digests) == NODES * 2
    flags = ["--scrub-interval", "1s", "--scrub-rate", "1GiB"]
    rotten = [random.Random(number).sample(range(PIECES), 8) for number in range(len(services))]
    for service, pieces in zip(services, rotten, strict=True):
        for digest in digests:
            wait_until(stored_path(service.data_dir, digest).exists, "the blob under its final name")
        service.stop()
        for digest in digests:
            for piece in pieces:
                flip(stored_path(service.data_dir, digest), piece * PIECE_BYTES + piece)
        service.extra += flags
    for service in services:
        service.start()
    cluster.wait_for_sessions(NODES)
    assert_becomes(lambda: [rotten_pieces(service) for service in services], [16] * len(services))
    assert pull_everywhere(cluster.peers, digests) == NODES * 2
    somewhere = set().union(*rotten)
    for digest in digests:
        assert origin.ledger().blob_bytes(digest) <= SIZE_BYTES + len(somewhere) * PIECE_BYTES
