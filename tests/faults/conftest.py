"""One real registry for all fault tests, a counting proxy before it and a cluster behind that for each.

Blobs are random bytes, each test's its own, so that no test finds what another left in the registry's books.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.pullers import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_seeds = itertools.count(1)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def push(registry: Registry) -> Callable[[int], str]:
    """Puts a new blob of so many random bytes into the registry; its digest."""

    def push_random(size_bytes: int) -> str:
        with registry.writer() as writer:
            return writer.push_blob_bytes(REPOSITORY, random.Random(next(_seeds)).randbytes(size_bytes))

    return push_random


@pytest.fixture
def origin(registry: Registry) -> Iterator[CountingProxy]:
    """The origin that the cluster knows."""
    with CountingProxy(registry.host_port) as proxy:
        yield proxy


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    """A supernode on loopback; the tests add peers."""
    with Cluster(tmp_path, origin.address) as running:
        yield running
