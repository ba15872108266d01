"""`docker build` with BuildKit: the base image of FROM comes through the node's peer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.netns import Lab
from benchmarks.harness.registry import Registry
from benchmarks.origin.image import make_random_image
from tests.support.clients import DockerDaemon
from tests.support.site import Site, assert_all_came_by_the_swarm, assert_left_the_origin_once

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("dockerd", "docker", "docker-registry", "ip", "tc", "nsenter", "curl"),
]

SIZES_BYTES = (500, 700_000, 4_000_000)


def test_buildkit_fetches_its_base_image_through_the_peer(tmp_path: Path) -> None:
    image = make_random_image(tmp_path / "image", SIZES_BYTES, seed=4, with_index=True)
    context = tmp_path / "context"
    context.mkdir()
    (context / "hello").write_text("hello")
    with Lab() as lab, Registry(tmp_path / "registry") as registry:
        registry.push(image, "library/random")
        with Site(lab, registry, tmp_path, named=["docker.io"]) as site:
            node = site.add_node()
            mirror = node.peer.proxy_url
            with DockerDaemon(netns=node.client.name, mirrors=[mirror], insecure_registries=[mirror]) as daemon:
                daemon.build("FROM random:latest\nCOPY hello /hello\n", context, "built")
                files = daemon.file_digests("built")
            assert files["hello"] == hashlib.sha256(b"hello").hexdigest()
            assert len(files) == len(SIZES_BYTES) + 1
            assert_left_the_origin_once(site.origin, image.blobs)
            assert_all_came_by_the_swarm(node.peer, image)
