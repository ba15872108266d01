"""Real dockerd through `registry-mirrors`: two nodes at once, and the origin sends each layer once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.netns import Lab
from benchmarks.harness.registry import Registry
from benchmarks.origin.image import Image, make_random_image
from tests.support.clients import DockerDaemon
from tests.support.site import Site, assert_all_came_by_the_swarm, assert_left_the_origin_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("dockerd", "docker", "docker-registry", "ip", "tc", "nsenter", "curl"),
]

REPOSITORY = "library/random"
SIZES_BYTES = (500, 40_000, 3_000_000, 9_000_000, 18_000_000)
RATE_BYTES_S = 2_500_000  # of the origin: 30 MB take it 12 s


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=1, with_index=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(image, REPOSITORY)
        yield running


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as network:
        yield network


@pytest.fixture
def site(lab: Lab, registry: Registry, tmp_path: Path) -> Iterator[Site]:
    with Site(lab, registry, tmp_path) as running:
        yield running


def test_two_dockerds_pull_at_once_and_the_origin_sends_each_layer_once(site: Site, image: Image) -> None:
    site.origin.set_rate(RATE_BYTES_S)
    nodes = [site.add_node(), site.add_node()]
    site.cluster.wait_for_sessions(2)
    first, second = nodes
    with (
        DockerDaemon(netns=first.client.name, mirrors=[first.peer.proxy_url]) as one,
        DockerDaemon(netns=second.client.name, mirrors=[second.peer.proxy_url]) as other,
    ):
        begun_s = time.monotonic()
        with one.start_pull("random:latest") as pull, other.start_pull("random:latest") as other_pull:
            assert [pull.wait(90), other_pull.wait(90)] == [0, 0], pull.log_tail() + other_pull.log_tail()
        assert time.monotonic() - begun_s >= 10
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
        assert share >= 0.4
