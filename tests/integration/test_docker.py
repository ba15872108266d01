"""Real dockerd through `registry-mirrors`: two nodes at once, and the origin sends each layer once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.registry import Registry
from tests.support.clients_table import MIRROR, NO_LOGIN
from tests.support.pullers import REPOSITORY
from tests.support.site import Site, assert_all_came_by_the_swarm, assert_left_the_origin_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.clients import DockerDaemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("dockerd", "docker", "docker-registry", "ip", "tc", "nsenter", "curl"),
]

SIZES_BYTES = (500, 40_000, 2_000_000, 4_000_000, 6_000_000)
RATE_BYTES_S = 2_000_000  # of the origin: 12 MB take it 6 s
PULL_TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(image, REPOSITORY)
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=1, with_index=True)


@pytest.mark.pulls("dockerd", MIRROR, NO_LOGIN)
def test_two_dockerds_pull_at_once_and_the_origin_sends_each_layer_once(
    site: Site, image: Image, dockerd: Callable[..., DockerDaemon]
) -> None:
    site.origin.set_rate(RATE_BYTES_S)
    nodes = [site.add_node(), site.add_node()]
    site.cluster.wait_for_sessions(2)
    one, other = (dockerd(node.client.name, node.peer.proxy_url) for node in nodes)
    begun_s = time.monotonic()
    with one.start_pull("random:latest") as pull, other.start_pull("random:latest") as other_pull:
        assert [pull.wait(PULL_TIMEOUT_S), other_pull.wait(PULL_TIMEOUT_S)] == [0, 0], (
            pull.log_tail() + other_pull.log_tail()
        )
    assert time.monotonic() - begun_s >= 5
    unpacked = [daemon.file_digests("random:latest") for daemon in (one, other)]
    assert len(unpacked[0]) == len(SIZES_BYTES)
    assert unpacked[0] == unpacked[1]
    for daemon in (one, other):
        assert daemon.inspect("random:latest")["Id"] == image.config.digest
        assert daemon.inspect("random:latest")["RepoDigests"] == [f"random@{image.top.digest}"]
    assert_left_the_origin_once(site.origin, image.blobs)
    for node in nodes:
        assert_all_came_by_the_swarm(node.peer, image)
        share = node.peer.received_bytes("peer") / image.size_bytes
        print(f"{node.peer.name}: {share:.3f} of its bytes came from peers")
    # How many depends on how far apart the two began.
    assert site.cluster.received_bytes("peer") > 0
