"""`docker build` with BuildKit: the base image of FROM comes through the node's peer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.support.clients_table import MIRROR, NO_LOGIN
from tests.support.site import ClientNode, Site, assert_all_came_by_the_swarm, assert_left_the_origin_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from tests.support.clients import DockerDaemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.client("dockerd", "docker", "docker-registry", "ip", "tc", "nsenter", "curl"),
]


@pytest.mark.pulls("docker build (BuildKit in dockerd)", MIRROR, NO_LOGIN)
def test_buildkit_fetches_its_base_image_through_the_peer(
    site: Site, node: ClientNode, image: Image, dockerd: Callable[..., DockerDaemon], tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "hello").write_text("hello")
    daemon = dockerd(node.client.name, node.peer.proxy_url, builds=True)
    daemon.build("FROM random:latest\nCOPY hello /hello\n", context, "built")
    files = daemon.file_digests("built")
    assert files["hello"] == hashlib.sha256(b"hello").hexdigest()
    assert len(files) == len(image.layers) + 1
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)
