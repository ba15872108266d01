"""Real podman and skopeo through registries.conf: the registry is the first part of the mirror's path."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.services import Cluster
from tests.support.clients.podman import wrongly_named_files
from tests.support.clients_table import NO_LOGIN, PREFIX
from tests.support.site import (
    ClientNode,
    Site,
    assert_all_came_by_the_swarm,
    assert_left_the_origin_once,
    assert_stored_blobs_suffice,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.registry import Registry
    from tests.support.clients import Podman, Skopeo

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]


def mirror_of(node: ClientNode) -> str:
    """Of quay.io: the registry is the first part of the path."""
    return f"{node.peer.proxy}/quay.io"


@pytest.mark.pulls("podman", PREFIX, NO_LOGIN)
@pytest.mark.client("podman")
def test_podman_pulls_by_registries_conf(
    site: Site, node: ClientNode, image: Image, podman: Callable[..., Podman]
) -> None:
    client = podman(node.client.name, mirror_of(node))
    assert f"sha256:{client.pull('quay.io/library/random:latest')}" == image.config.digest
    assert len(client.file_digests("quay.io/library/random:latest")) == len(image.layers)
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_all_came_by_the_swarm(node.peer, image)


@pytest.mark.pulls("skopeo", PREFIX, NO_LOGIN)
@pytest.mark.client("skopeo")
def test_skopeo_copies_by_registries_conf_and_the_second_time_from_the_store(
    site: Site, node: ClientNode, image: Image, skopeo: Callable[..., Skopeo]
) -> None:
    client = skopeo(node.client.name, mirror_of(node))
    for _ in range(2):
        folder = client.pull("quay.io/library/random:latest")
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["config"]["digest"] == image.config.digest
        assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
        assert wrongly_named_files(folder) == []
    assert_left_the_origin_once(site.origin, image.blobs)
    assert_stored_blobs_suffice(node.peer, image)


def test_a_tls_hello_is_answered_by_a_close_at_once(tmp_path: Path, registry: Registry) -> None:
    # `insecure` makes these clients try TLS first; they would wait for an answer that does not come.
    hello = bytes.fromhex("1603010005010000010303")
    with Cluster(tmp_path, registry.address) as cluster:
        host, _, port = cluster.add_peer().proxy.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
            client.sendall(hello)
            while client.recv(4096):
                pass
