"""Real containerd through hosts.toml, by ctr and by the kubelet's CRI: the registry is named by `?ns=`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.proxy_process import CountingProxyProcess
from tests.support.clients import Containerd
from tests.support.clients_table import NO_LOGIN, NS
from tests.support.site import (
    ClientNode,
    Site,
    assert_all_came_by_the_swarm,
    assert_left_the_origin_once,
    assert_stored_blobs_suffice,
)

if TYPE_CHECKING:
    from benchmarks.cluster.image import Image

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("containerd", "ctr", "docker-registry", "ip", "tc", "nsenter", "curl"),
]


Start = Callable[[str, str], Containerd]


@pytest.mark.pulls("containerd, ctr", NS, NO_LOGIN)
def test_ctr_pulls_by_hosts_toml_and_the_second_time_from_the_store(
    site: Site, node: ClientNode, image: Image, containerd: Start
) -> None:
    pull_by_ctr(containerd, node, "docker.io/library/random:latest", image)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)
    assert [exchange.query for exchange in site.origin.ledger().exchanges if exchange.query] == []
    pull_by_ctr(containerd, node, "docker.io/library/random:latest", image)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_stored_blobs_suffice(node.peer, image)


def pull_by_ctr(containerd: Start, node: ClientNode, reference: str, image: Image) -> None:
    """By a containerd that has nothing yet."""
    with containerd(node.client.name, node.peer.proxy_url) as daemon:
        daemon.pull(reference)
        assert {blob.digest for blob in image.blobs} <= daemon.content()


def test_a_registry_is_found_by_host_and_port(site: Site, node: ClientNode, image: Image, containerd: Start) -> None:
    pull_by_ctr(containerd, node, f"{site.origin.address}/library/random:latest", image)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)


@pytest.mark.pulls("containerd, CRI", NS, NO_LOGIN)
def test_cri_pulls_three_layers_at_a_time_over_connections_it_keeps_and_later_from_the_store(
    site: Site, node: ClientNode, image: Image, containerd: Start
) -> None:
    host, _, port = node.peer.proxy.rpartition(":")
    with (
        CountingProxyProcess((host, int(port)), netns=node.client.name) as between,
        containerd(node.client.name, between.url).cri() as cri,
    ):
        assert cri.pull("quay.io/library/random:latest") == image.config.digest
        assert cri.images()[image.config.digest] == [
            "quay.io/library/random:latest",
            f"quay.io/library/random@{image.top.digest}",
        ]
        exchanges = between.ledger().exchanges
    assert {exchange.query for exchange in exchanges} == {"ns=quay.io"}
    assert {exchange.status for exchange in exchanges} == {200}
    assert len({exchange.client for exchange in exchanges}) < len(exchanges)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)
    # A containerd that has nothing yet.
    with containerd(node.client.name, node.peer.proxy_url).cri() as cri:
        assert cri.pull("quay.io/library/random:latest") == image.config.digest
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_stored_blobs_suffice(node.peer, image)
