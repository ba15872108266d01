"""Real podman and skopeo through registries.conf: the registry is the first part of the mirror's path."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.cluster import Cluster
from benchmarks.harness.netns import Lab
from benchmarks.harness.processes import WAIT_S
from benchmarks.harness.registry import Registry
from benchmarks.origin.image import Image, make_random_image
from tests.support.clients import Mirror, Podman, Skopeo
from tests.support.clients.podman import wrongly_named_files
from tests.support.site import (
    ClientNode,
    Site,
    assert_all_came_by_the_swarm,
    assert_left_the_origin_once,
    assert_stored_blobs_suffice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]

REPOSITORY = "library/random"
SIZES_BYTES = (500, 700_000, 4_000_000)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=3, with_index=True)


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
    with Site(lab, registry, tmp_path, named=["quay.io"]) as running:
        yield running


@pytest.fixture
def node(site: Site) -> ClientNode:
    return site.add_node()


def mirror_of(node: ClientNode) -> Mirror:
    return Mirror("quay.io", f"{node.peer.proxy}/quay.io")


@pytest.mark.client("podman")
def test_podman_pulls_by_registries_conf(site: Site, node: ClientNode, image: Image) -> None:
    with Podman([mirror_of(node)], netns=node.client.name) as podman:
        assert f"sha256:{podman.pull('quay.io/library/random:latest')}" == image.config.digest
        assert len(podman.file_digests("quay.io/library/random:latest")) == len(SIZES_BYTES)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)


@pytest.mark.client("skopeo")
def test_skopeo_copies_by_registries_conf_and_the_second_time_from_the_store(
    site: Site, node: ClientNode, image: Image
) -> None:
    with Skopeo([mirror_of(node)], netns=node.client.name) as skopeo:
        for _ in range(2):
            folder = skopeo.pull("quay.io/library/random:latest")
            manifest = json.loads((folder / "manifest.json").read_text())
            assert manifest["config"]["digest"] == image.config.digest
            assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
            assert wrongly_named_files(folder) == []
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_stored_blobs_suffice(node.peer, image)


def test_a_tls_hello_is_answered_by_a_close_at_once(tmp_path: Path, registry: Registry) -> None:
    # `insecure` makes these clients try TLS first; they would wait 10 s for an answer that does not come.
    hello = bytes.fromhex("1603010005010000010303")
    with Cluster(tmp_path, registry.address) as cluster:
        host, _, port = cluster.add_peer().proxy.rpartition(":")
        begun_s = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
            client.sendall(hello)
            while client.recv(4096):
                pass
        assert time.monotonic() - begun_s < 8
