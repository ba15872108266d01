"""Lazy clients of an origin that knows no ranges or cuts them, and of a cluster whose supernode is gone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import wait_until
from tests.support.pullers import REPOSITORY
from tests.support.ranges import read_ranges

if TYPE_CHECKING:
    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Cluster

pytestmark = pytest.mark.client("docker-registry")

SIZE_BYTES = 8 << 20
RANGES = [(SIZE_BYTES - 51, SIZE_BYTES), (3_000_000, 3_200_000), (100, 200), (5_000_000, 5_000_001)]


@pytest.fixture
def blob(registry: Registry, request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """A cold layer, each test's own, with its content."""
    content = random.Random(request.node.name).randbytes(SIZE_BYTES)
    with registry.writer() as writer:
        return writer.push_blob_bytes(REPOSITORY, content), content


def test_an_origin_that_knows_no_ranges_sends_the_layer_once(
    cluster: Cluster, origin: CountingProxy, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.add_peer()
    origin.add_fault(Fault(path_contains=digest, method="GET", ignore_range=True))
    for start, end in RANGES:
        assert read_ranges(peer.proxy, digest, (start, end)) == [content[start:end]]
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES


def test_an_origin_that_cuts_a_range_is_asked_for_the_rest_of_it(
    cluster: Cluster, origin: CountingProxy, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.add_peer()
    origin.add_fault(Fault(path_contains=digest, method="GET", cut_after_bytes=10_000, times=3))
    for start, end in RANGES:
        assert read_ranges(peer.proxy, digest, (start, end)) == [content[start:end]]


def test_ranges_are_the_origins_to_give_once_the_supernode_is_gone(
    cluster: Cluster, origin: CountingProxy, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.add_peer()
    first, *others = RANGES
    assert read_ranges(peer.proxy, digest, first) == [content[slice(*first)]]
    cluster.supernode.kill()
    origin.reset()
    assert read_ranges(peer.proxy, digest, *others) == [content[start:end] for start, end in others]
    # Just them, and at once: nothing is waited for and nothing else fetched.
    assert origin.ledger().blob_bytes(digest) == sum(end - start for start, end in others)
    assert read_ranges(peer.proxy, digest, first) == [content[slice(*first)]]
    assert origin.ledger().blob_bytes(digest) == sum(end - start for start, end in others)


def test_who_waits_for_a_range_when_the_supernode_dies_goes_on_at_the_origin(
    cluster: Cluster, origin: CountingProxy, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.add_peer()
    origin.add_fault(Fault(path_contains=digest, method="GET", stall_after_bytes=0, times=1))
    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read_ranges, peer.proxy, digest, *RANGES)
        wait_until(lambda: bool(origin.ledger().of_blob(digest)))
        cluster.supernode.kill()
        assert reading.result() == [content[start:end] for start, end in RANGES]
