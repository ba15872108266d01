"""This node's own fetches: ranges, resuming, origins that misbehave, stopping."""

from __future__ import annotations

import contextlib
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.downloader.contract import FetchUpstream, UpstreamEnded, UpstreamPiece
from peer.node.origin_fetch import UpstreamFetcher
from peer.registry.limits import OriginLimits
from peer.registry.origins import Origins
from peer.store.disk import DiskStore
from proto.oci.upstreams import UpstreamTable
from proto.pieces import KIB, MIB, PieceLayout
from proto.wire.messages import Source
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.downloader.contract import Event
    from peer.store.base import BlobHandle

PIECE = 256 * KIB
CONTENT = random.Random(7).randbytes(4 * PIECE - 100)


@dataclass
class Run:
    """One fetch and what came of it."""

    handle: BlobHandle
    pieces: list[int] = field(default_factory=list)
    reason: str = "?"
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, event: Event) -> None:
        if isinstance(event, UpstreamPiece):
            self.pieces.append(event.piece)
        elif isinstance(event, UpstreamEnded):
            self.reason = event.reason
            self.ended.set()


class Node:
    """A store and a fetcher before one origin."""

    def __init__(self, store: DiskStore, fetcher: UpstreamFetcher, origin: FakeOrigin) -> None:
        self.store = store
        self.fetcher = fetcher
        self.origin = origin
        self.digest = origin.add(CONTENT)
        self.received = 0

    def begin(self, pieces: int, first: int = 0) -> Run:
        run = Run(self.store.open(self.digest, PieceLayout(len(CONTENT), PIECE)))
        source = Source(self.origin.authority, "name")
        self.fetcher.start(FetchUpstream(1, self.digest, source, pieces, first), run.handle, run.take)
        return run

    def fetch(self, pieces: int, first: int = 0) -> Run:
        run = self.begin(pieces, first)
        assert run.ended.wait(WAIT_S)
        return run

    @property
    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.origin.blob_requests()]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(fake_origin())
        store = DiskStore(tmp_path, size_limit_bytes=64 * MIB, free_floor_bytes=0)
        stack.callback(store.close)
        table = UpstreamTable([origin.upstream], origin.authority)
        origins = Origins(lambda: table)
        stack.callback(origins.close)

        def count(size_bytes: int) -> None:
            made.received += size_bytes

        fetcher = UpstreamFetcher(origins, count)
        stack.callback(fetcher.close)
        made = Node(store, fetcher, origin)
        yield made


def test_a_whole_blob_is_one_plain_get(node: Node) -> None:
    run = node.fetch(0b1111)
    assert (run.reason, run.pieces) == ("", [0, 1, 2, 3])
    assert node.ranges == [None]
    assert node.received == len(CONTENT)
    assert run.handle.check_digest()
    run.handle.close()


def test_what_this_node_fetches_counts_for_the_origins_rate(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(OriginLimits, "received", lambda _, upstream, size_bytes: told.append((upstream, size_bytes)))
    node.fetch(0b1111).handle.close()
    assert {upstream for upstream, _ in told} == {node.origin.authority}
    assert sum(size_bytes for _, size_bytes in told) == len(CONTENT)


def test_only_missing_ranges_are_asked_for_from_the_reader_s_place_on(node: Node) -> None:
    run = node.fetch(0b1101, first=2)
    assert (run.reason, run.pieces) == ("", [2, 3, 0])
    assert node.ranges == [f"bytes={2 * PIECE}-{len(CONTENT) - 1}", f"bytes=0-{PIECE - 1}"]
    run.handle.close()


def test_a_cut_body_is_resumed_at_the_byte_reached(node: Node) -> None:
    node.origin.faults = [Fault(cut_after_bytes=PIECE + 1000)]
    run = node.fetch(0b1111)
    assert run.reason == ""
    assert node.ranges == [None, f"bytes={PIECE + 1000}-{len(CONTENT) - 1}"]
    assert node.received == len(CONTENT)
    assert run.handle.check_digest()
    run.handle.close()


def test_an_origin_without_ranges_is_read_through(node: Node) -> None:
    node.origin.ranges = False
    run = node.fetch(0b0100)
    assert (run.reason, run.pieces) == ("", [2])
    run.handle.close()


def test_an_origin_that_lies_about_the_length_is_found_out(node: Node) -> None:
    node.origin.blobs[str(node.digest)] = CONTENT + b"more"
    run = node.fetch(0b1111)
    assert run.reason == "content"
    run.handle.close()


@pytest.mark.parametrize(("status", "reason"), [(404, "unknown"), (403, "denied")])
def test_a_refusal_ends_the_fetch_at_once(node: Node, status: int, reason: str) -> None:
    node.origin.faults = [Fault(status=status)]
    run = node.fetch(0b1111)
    assert (run.reason, len(node.ranges)) == (reason, 1)
    run.handle.close()


def test_a_passing_failure_is_tried_again(node: Node) -> None:
    node.origin.faults = [Fault(status=503)]
    run = node.fetch(0b1111)
    assert (run.reason, len(node.ranges)) == ("", 2)
    run.handle.close()


def test_stopping_keeps_the_piece_in_hand(node: Node) -> None:
    node.origin.faults = [Fault(stall_after_bytes=PIECE // 2)]
    run = node.begin(0b1111)
    wait_until(lambda: node.fetcher._running[1].begun)
    node.fetcher.stop(1)
    node.origin.released.set()
    assert run.ended.wait(WAIT_S)
    assert (run.reason, run.pieces) == ("cancelled", [0])
    assert run.handle.held == 0b0001
    run.handle.close()


def test_closing_ends_a_stalled_fetch(node: Node) -> None:
    node.origin.faults = [Fault(stall_after_bytes=1000)]
    run = node.begin(0b1111)
    while not node.received:
        run.ended.wait(0.01)
    node.fetcher.close()
    assert run.ended.wait(WAIT_S)
    assert run.reason == "cancelled"
    node.origin.released.set()
    run.handle.close()
