"""The HTTP transport against the suite that every transport must pass: real sockets, real stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.store.disk import DiskStore
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from proto.config.values import HostPort
from proto.ids import peer_name
from proto.wire.tickets import Identity
from tests.conformance.transport_suite import TransportSuite, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    supernode, downloader, uploader = (Identity.generate() for _ in range(3))
    source = DiskStore(tmp_path / "source", size_limit_bytes=1 << 30, free_floor_bytes=0)
    target = DiskStore(tmp_path / "target", size_limit_bytes=1 << 30, free_floor_bytes=0)
    server = UploadServer(
        HostPort("127.0.0.1", 0), source, lambda: supernode.peer, peer_name(uploader.peer), slots=4, queue_max=1000
    )
    transport = HttpTransport(downloader, workers=4, connect_timeout_s=WAIT_S, slot_wait_s=WAIT_S)
    yield Wire(supernode, downloader, uploader, source, target, server, transport)
    transport.close()
    server.close()
    source.close()
    target.close()


class TestHttpTransport(TransportSuite):
    pass
