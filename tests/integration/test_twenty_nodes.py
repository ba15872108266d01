"""Twenty cold nodes at once, a client at each: the origin sends every byte of every blob once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.pullers import start_pull
from tests.support.site import assert_all_came_by_the_swarm, assert_left_the_origin_once

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry")

NODES = 20
SIZES_BYTES = (500, 40_000, 1_000_000, 4_000_000, 10_000_000)


def test_twenty_cold_nodes_cost_the_origin_one_image(tmp_path: Path) -> None:
    image = make_random_image(tmp_path / "image", SIZES_BYTES, seed=5)
    with (
        Registry(tmp_path / "registry") as registry,
        CountingProxy(registry.host_port) as origin,
        Cluster(tmp_path, origin.address) as cluster,
    ):
        registry.push(image, "library/random")
        peers = cluster.add_peers([None] * NODES)
        cluster.wait_for_sessions(NODES)
        with ExitStack() as hanging_up:
            pulls = [
                (blob, hanging_up.enter_context(start_pull(peer.proxy, blob.digest)))
                for blob in image.blobs
                for peer in peers
            ]
            answers = [(blob, pull.result()) for blob, pull in pulls]
        wrong = [(blob.digest, answer) for blob, answer in answers if not answer.complete]
        assert wrong == []
        assert all(answer.sha256 == blob.digest for blob, answer in answers)
        assert_left_the_origin_once(origin, image.blobs)
        for peer in peers:
            assert_all_came_by_the_swarm(peer, image, manifests=False)
        by_peers = cluster.received_bytes("peer") / (NODES * image.size_bytes)
        print(f"{by_peers:.3f} of all bytes came from peers")
        assert by_peers >= 0.5
