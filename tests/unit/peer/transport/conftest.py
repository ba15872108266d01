"""An upload server over a store of its own, for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from peer.transport import pace, upload_turns
from peer.transport.pace import SLOW_WINDOW_S
from peer.transport.server import UploadServer
from peer.transport.upload_turns import SHARE_AFTER_S
from proto.config.values import HostPort
from tests.support.blobs import fill
from tests.unit.peer.transport.upload_harness import LARGE, SMALL, SUPERNODE, UPLOADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Longer than anything is waited for here.
LONG_S = 10 * WAIT_S


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    """It holds SMALL."""
    store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    handle = fill(store, SMALL)
    handle.learn_hashes(SignedHashes(0, SMALL.hashes, bytes(64)))
    handle.close()
    yield store
    store.close()


@pytest.fixture
def large(store: DiskStore) -> None:
    """The store holds LARGE too."""
    fill(store, LARGE).close()


@pytest.fixture
def serve(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UploadServer]]:
    """Starts a server over the store. A client may read nothing for as long as a test likes: it is not found slow."""
    servers: list[UploadServer] = []
    monkeypatch.setattr(pace, "SLOW_WINDOW_S", LONG_S)
    monkeypatch.setattr(upload_turns, "SHARE_AFTER_S", LONG_S)

    def start(**options: float) -> UploadServer:
        settings = {"slots": 2, "queue_max": 2, "send_timeout_s": LONG_S, **options}
        servers.append(UploadServer(HostPort("127.0.0.1", 0), store, lambda: SUPERNODE.peer, UPLOADER, **settings))  # type: ignore[arg-type]  # ints and floats alike
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def slow_soon(serve: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes little is found slow, as in the product."""
    monkeypatch.setattr(pace, "SLOW_WINDOW_S", SLOW_WINDOW_S)
    monkeypatch.setattr(upload_turns, "SHARE_AFTER_S", SHARE_AFTER_S)
