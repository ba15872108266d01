"""The networks that client tests run in: who reaches whom, how fast, and that nothing of them stays."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.namespaces import NETNS_DIR
from tests.support.networks import Lab, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.processes import ManagedProcess

pytestmark = [pytest.mark.root, pytest.mark.client("ip", "tc", "nsenter", "curl")]

PORT = 8000


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as network:
        yield network


def serve(node: Node, folder: Path) -> ManagedProcess:
    """A web server on all of the node's addresses."""
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "0.0.0.0", "--directory", str(folder), str(PORT)]
    process = node.start(argv)
    process.wait_for_line("Serving HTTP")
    return process


def test_nodes_reach_each_other_and_a_client_its_node_alone(lab: Lab, tmp_path: Path) -> None:
    node, other = lab.add_node(), lab.add_node()
    client = node.add_client()
    with serve(node, tmp_path), serve(other, tmp_path):
        assert other.reaches(node.address, PORT)
        assert client.reaches(client.gateway, PORT)
        assert not client.reaches(other.address, PORT)
        assert not client.reaches(node.address, PORT)


def test_a_shaped_link_has_its_rate(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    node, other = lab.add_node(), lab.add_node()
    node.shape(8e6)
    with serve(node, tmp_path):
        begun_s = time.monotonic()
        other.run(["curl", "-sf", "-o", "/dev/null", f"http://{node.address}:{PORT}/file"])
        assert time.monotonic() - begun_s > 0.9


def test_a_silenced_node_loses_every_frame_until_restored(lab: Lab, tmp_path: Path) -> None:
    node, other = lab.add_node(), lab.add_node()
    with serve(node, tmp_path):
        assert other.reaches(node.address, PORT)
        node.silence()
        assert not other.reaches(node.address, PORT)
        node.restore()
        assert other.reaches(node.address, PORT)


def test_a_closed_lab_leaves_no_namespace_and_no_cable() -> None:
    with Lab() as network:
        network.add_node().add_client()
        prefix, device = network.prefix, Path("/sys/class/net", network.host_device)
        assert device.exists()
    assert [path.name for path in NETNS_DIR.iterdir() if path.name.startswith(prefix)] == []
    assert not device.exists()
