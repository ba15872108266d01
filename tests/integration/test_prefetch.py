"""A node begins an image's next layer while its client still reads the one before, and no other, unless told not to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.cluster import Cluster
from benchmarks.harness.processes import wait_until
from benchmarks.harness.registry import Registry
from benchmarks.origin.counting_proxy import CountingProxy
from benchmarks.origin.image import make_random_image
from tests.support.counts import assert_metric
from tests.support.pullers import REPOSITORY, get, pull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.origin.image import Image

pytestmark = pytest.mark.client("docker-registry")

SIZES_BYTES = (3_000_000, 2_000_000, 40_000, 1_000_000)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return make_random_image(tmp_path / "image", SIZES_BYTES, seed=9)


@pytest.fixture
def origin(tmp_path: Path, image: Image) -> Iterator[CountingProxy]:
    with Registry(tmp_path / "registry") as registry, CountingProxy(registry.host_port) as counted:
        registry.push(image, REPOSITORY)
        yield counted


def read_manifest(proxy: str, image: Image) -> None:
    target = f"/v2/{REPOSITORY}/manifests/{image.manifest.digest}"
    answer = get(proxy, target, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    assert answer.sha256 == image.manifest.digest


def test_the_second_layer_is_at_the_node_when_the_client_asks_for_it(
    tmp_path: Path, origin: CountingProxy, image: Image
) -> None:
    first, second, third, fourth = image.layers
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        read_manifest(peer.proxy, image)
        assert pull(peer.proxy, first.digest).sha256 == first.digest
        both_bytes = first.size_bytes + second.size_bytes
        assert_metric(peer, "layercast_store_bytes", both_bytes)
        assert pull(peer.proxy, second.digest).sha256 == second.digest
        wait_until(lambda: origin.ledger().gets(third.digest) == 1, "the third layer", 20.0)
        assert origin.ledger().gets(second.digest) == 1, "it came once, before it was asked for"
        assert origin.ledger().gets(fourth.digest) == 0, "nobody read the third"
        assert_metric(peer, "layercast_layers_begun_ahead_total", 2)


def test_where_it_is_switched_off_nothing_comes_that_was_not_asked_for(
    tmp_path: Path, origin: CountingProxy, image: Image
) -> None:
    first, second, third, _ = image.layers
    with Cluster(tmp_path, origin.address, peer_flags=["--prefetch", "false"]) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        read_manifest(peer.proxy, image)
        for layer in (first, third):
            assert pull(peer.proxy, layer.digest).sha256 == layer.digest
        assert origin.ledger().gets(second.digest) == 0
        assert_metric(peer, "layercast_store_bytes", first.size_bytes + third.size_bytes)
