"""Our programs as the harness starts them: their ready line, their addresses, their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.services import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_ORIGIN = "127.0.0.1:1"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, NO_ORIGIN) as running:
        yield running


def test_a_supernode_is_healthy_when_it_says_it_is_ready(cluster: Cluster) -> None:
    assert cluster.supernode.healthz()[0] == 200
    assert "layercast_sessions_open" in cluster.supernode.metrics().names()


def test_a_killed_supernode_comes_back_where_it_was(cluster: Cluster) -> None:
    ready = cluster.supernode.ready
    cluster.supernode.kill()
    cluster.supernode.start()
    assert cluster.supernode.ready == ready


def test_a_supernode_ends_cleanly_on_sigterm(cluster: Cluster) -> None:
    assert cluster.supernode.stop() == 0
