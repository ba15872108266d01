"""docs/tutorial.md: its commands, run as they are written, in their order, where nothing else listens."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.metrics import scrape
from benchmarks.cluster.namespaces import batch, inside, remove_namespaces
from benchmarks.cluster.processes import ManagedProcess, run
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.services import script
from tests.support.layout_registry import LayoutRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.client("ip", "nsenter")]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
# Stand for those of Docker Hub.
IMAGES = {"library/alpine": "3.20", "library/busybox": "1.36"}
PATIENCE_S = 300.0
# Of both nodes and the supernode.
STATUS = ("127.0.0.1:65001", "127.0.0.1:65101", "127.0.0.1:65000")


@pytest.fixture
def network() -> Iterator[str]:
    """The name of a network namespace with nothing but loopback."""
    name = f"layercast-tutorial-{os.getpid()}"
    batch("ip", [f"netns add {name}"])
    batch("ip", ["link set lo up"], name)
    yield name
    remove_namespaces([name])


def commands() -> list[tuple[bool, str]]:
    """Of the page: whether it goes on running, and the command."""
    blocks = re.findall(r"^```(sh|sh runs)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [(kind == "sh runs", line) for kind, block in blocks for line in block.splitlines()]


def test_the_tutorial_runs_as_it_is_written(network: str, tmp_path: Path) -> None:
    images = {
        name: make_random_image(tmp_path / name, [900_000, 70_000], seed=number, ref_name=tag)
        for number, (name, tag) in enumerate(IMAGES.items())
    }
    environment = clean_environment(HOME=str(tmp_path))
    environment["PATH"] = f"{script('layercast').parent}:{environment['PATH']}"
    with contextlib.ExitStack() as running:
        registry = inside(network, lambda: LayoutRegistry({name: tmp_path / name for name in images}))
        running.enter_context(registry)
        config = tmp_path / "layercast.toml"
        config.write_text(f'[upstream."docker.io"]\nurl = "http://{registry.address}"\n')
        environment["LAYERCAST_CONFIG"] = str(config)
        services: list[ManagedProcess] = []
        *before, (_, end) = commands()
        for runs, command in before:
            if runs:
                argv = shlex.split(command)
                service = ManagedProcess(argv, netns=network, env=environment, cwd=tmp_path)
                services.append(running.enter_context(service))
                service.wait_ready(PATIENCE_S)
            else:
                words = ["/bin/sh", "-euc", command]
                run(words, netns=network, env=environment, cwd=tmp_path, timeout_s=PATIENCE_S)
        first, second, supernode = (inside(network, functools.partial(scrape, each)) for each in STATUS)
        assert [service.terminate() for service in services] == [0, 0]
        run(["/bin/sh", "-euc", end], env=environment, cwd=tmp_path)
    # What the page says of the bytes: the registry sent each once, and none to a node.
    assert supernode.value("layercast_origin_bytes_total") == sum(image.pulled_bytes for image in images.values())
    for peer in (first, second):
        assert peer.value("layercast_bytes_total", source="origin") == 0
        assert peer.value("layercast_bytes_total", source="passthrough") == 0
    assert not (tmp_path / "tutorial").exists()
