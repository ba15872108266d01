"""One registry with one image for all tests of this folder, and a fixture for each real client.

A test that needs another image overrides `image` in its module; `registry` is then made anew for it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.registry import Registry
from tests.support.clients import Containerd, DockerDaemon, Mirror, Podman, Skopeo
from tests.support.networks import Lab
from tests.support.pullers import REPOSITORY
from tests.support.site import ClientNode, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZES_BYTES = (500, 700_000, 4_000_000)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Three layers, named by an index."""
    return make_random_image(tmp_path_factory.mktemp("image"), SIZES_BYTES, seed=2, with_index=True)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Registry]:
    """It has the image as library/random:latest."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(image, REPOSITORY)
        yield running


@pytest.fixture
def origin(registry: Registry) -> Iterator[CountingProxy]:
    """The registry as the programs on loopback see it, with fresh books."""
    with CountingProxy(registry.host_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A network; its nodes are each test's own."""
    with Lab() as network:
        yield network


@pytest.fixture
def site(lab: Lab, registry: Registry, tmp_path: Path) -> Iterator[Site]:
    """A supernode that finds docker.io and quay.io at the registry; the tests add nodes."""
    with Site(lab, registry, tmp_path, named=["docker.io", "quay.io"]) as running:
        yield running


@pytest.fixture
def node(site: Site) -> ClientNode:
    """A node of the site, with room for one client."""
    return site.add_node()


@pytest.fixture
def dockerd() -> Iterator[Callable[..., DockerDaemon]]:
    """Starts a dockerd: (network namespace, URL of its mirror of docker.io, whether BuildKit uses that too)."""
    with ExitStack() as running:

        def start(netns: str | None, mirror_url: str, *, builds: bool = False) -> DockerDaemon:
            insecure = [mirror_url] if builds else []
            daemon = DockerDaemon(netns=netns, mirrors=[mirror_url], insecure_registries=insecure)
            return running.enter_context(daemon)

        yield start


@pytest.fixture
def containerd() -> Iterator[Callable[[str, str], Containerd]]:
    """Starts a containerd: (network namespace, URL of its mirror of every registry)."""
    with ExitStack() as running:

        def start(netns: str, mirror_url: str) -> Containerd:
            return running.enter_context(Containerd({"_default": mirror_url}, netns=netns))

        yield start


@pytest.fixture
def podman() -> Iterator[Callable[..., Podman]]:
    """Sets up podman: (network namespace, where the mirror of a registry is: HOST:PORT and a path, the registry)."""
    with ExitStack() as running:

        def start(netns: str | None, mirror: str, registry: str = "quay.io") -> Podman:
            return running.enter_context(Podman([Mirror(registry, mirror)], netns=netns))

        yield start


@pytest.fixture
def skopeo() -> Iterator[Callable[..., Skopeo]]:
    """Sets up skopeo: (network namespace, where the mirror of a registry is: HOST:PORT and a path, the registry)."""
    with ExitStack() as running:

        def start(netns: str | None, mirror: str, registry: str = "quay.io") -> Skopeo:
            return running.enter_context(Skopeo([Mirror(registry, mirror)], netns=netns))

        yield start
