"""Clients that go away, and ends of programs: nothing is lost by it, nothing is asked for twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.processes import wait_until
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.cluster import Cluster
    from tests.support.counting_proxy import CountingProxy

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20


def test_a_download_goes_on_when_its_client_hangs_up(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(6 * MIB)
    peer = cluster.add_peer()
    origin.set_rate(4 * MIB)
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(1 * MIB)
    wait_until(lambda: peer.received_bytes("seed") == 6 * MIB, "the whole blob at the peer")
    answer = pull(peer.proxy, digest)
    assert answer.complete
    assert answer.sha256 == digest
    assert peer.client_bytes("store") == 6 * MIB
    assert origin.ledger().gets(digest) == 1
