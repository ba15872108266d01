"""Whole blobs by BitTorrent: into the store's file, checked there, given way, limited, served on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.store.disk import DiskStore
from peer.torrent.session import SessionLimits
from peer.torrent.swarms import TorrentSwarms
from proto.config.values import HostPort
from proto.errors import ConfigError
from proto.pieces import KIB, MIB
from tests.support.blobs import SomeBlob, fill, some_blob
from tests.support.torrents import RecordedEvents, metainfo_of, torrent_swarms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle

SIZE_BYTES = 3 * MIB + 5


@dataclass
class Side:
    """One node."""

    store: DiskStore
    swarms: TorrentSwarms
    events: RecordedEvents = field(default_factory=RecordedEvents)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.swarms.port}"

    def offer(self, blob: SomeBlob) -> None:
        assert self.swarms.offer(blob.digest, blob.layout, metainfo_of(blob))

    def close(self) -> None:
        self.swarms.close()
        self.store.close()


def make_side(folder: Path, *, download_rate_bytes_s: int = 0) -> Side:
    store, events = DiskStore(folder, size_limit_bytes=1 << 30, free_floor_bytes=0), RecordedEvents()
    return Side(store, torrent_swarms(store, events, download_rate_bytes_s=download_rate_bytes_s), events)


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[Side]:
    side = make_side(tmp_path / "seed")
    yield side
    side.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Side]:
    side = make_side(tmp_path / "node")
    yield side
    side.close()


@pytest.fixture
def blob() -> SomeBlob:
    return some_blob(SIZE_BYTES, piece_size_bytes=256 * KIB)


def seeded(seed: Side, blob: SomeBlob) -> None:
    fill(seed.store, blob).close()
    seed.offer(blob)


def wanted(node: Side, blob: SomeBlob) -> BlobHandle:
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, blob.hashes)
    node.offer(blob)
    node.swarms.blob_opened(blob.digest)
    return handle


def wait_whole(handle: BlobHandle) -> None:
    wait_until(lambda: handle.held == handle.layout.full_mask, "every piece")


def received(node: Side, blob: SomeBlob | None = None) -> int:
    """Payload bytes of the blob, or of all, by what was reported."""
    return sum(size_bytes for digest, size_bytes, _ in node.events.moved if blob is None or digest == blob.digest)


def fetch_another(seed: Side, node: Side) -> SomeBlob:
    """What was asked of the node before is done when this has come: another blob, whole, and its payload reported.

    The node takes what it is asked in order. It looks at its counters, and at blobs that wait for a writer, before it
    reports any payload.
    """
    another = some_blob(SIZE_BYTES // 8, piece_size_bytes=256 * KIB, seed=7)
    seeded(seed, another)
    handle = wanted(node, another)
    node.swarms.connect(another.digest, [seed.address])
    wait_whole(handle)
    wait_until(lambda: received(node, another) >= another.layout.size_bytes, "the report of its payload")
    handle.close()
    return another


def test_a_blob_comes_whole_and_each_piece_is_reported_once(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    wait_until(lambda: len(node.events.pieces) == blob.layout.count, "the reports")
    assert sorted(piece for _, piece, _ in node.events.pieces) == list(range(blob.layout.count))
    assert sum(size_bytes for _, _, size_bytes in node.events.pieces) == SIZE_BYTES
    assert handle.check_digest()
    handle.close()


def test_what_the_store_holds_is_not_fetched_again(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    fill(node.store, blob, [0, 3, 12]).close()
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    assert not {0, 3, 12} & {piece for _, piece, _ in node.events.pieces}
    handle.close()


def test_a_node_that_holds_a_part_serves_it(seed: Side, node: Side, blob: SomeBlob) -> None:
    fill(seed.store, blob, [1, 2]).close()
    seed.offer(blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: handle.held == 0b110, "two pieces")
    assert node.events.troubles == []
    handle.close()


def test_wrong_bytes_of_a_seed_are_never_held(tmp_path: Path, seed: Side, node: Side, blob: SomeBlob) -> None:
    source = fill(seed.store, blob)
    os.pwrite(source.fileno(), bytes(MIB), 0)
    source.close()
    seed.offer(blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: received(node) > 0, "wrong bytes")
    assert handle.held & 0b1111 == 0
    # Whoever has the right ones is believed still, and of the wrong ones nothing is left.
    good = make_side(tmp_path / "good")
    seeded(good, blob)
    node.swarms.connect(blob.digest, [good.address])
    wait_whole(handle)
    assert handle.check_digest()
    handle.close()
    good.close()


def test_who_was_banned_along_with_who_sent_wrong_bytes_is_asked_again(
    tmp_path: Path, seed: Side, blob: SomeBlob
) -> None:
    # Nearly every third node bans both, by which blocks come first; there is no way to have that for sure.
    liar, nodes = make_side(tmp_path / "liar"), [make_side(tmp_path / f"node-{number}") for number in range(8)]
    seeded(seed, blob)
    source = fill(liar.store, blob)
    os.pwrite(source.fileno(), bytes(SIZE_BYTES), 0)
    source.close()
    liar.offer(blob)
    handles = [wanted(node, blob) for node in nodes]
    for node in nodes:
        node.swarms.connect(blob.digest, [liar.address, seed.address])
    for handle in handles:
        wait_whole(handle)
        assert handle.check_digest()
        handle.close()
    for side in (*nodes, liar):
        side.close()


def test_content_that_libtorrent_believes_is_checked_once_more(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, bytes(32) + blob.hashes[32:])
    node.offer(blob)
    node.swarms.blob_opened(blob.digest)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: bool(node.events.troubles), "the trouble")
    assert not handle.held & 1
    assert "does not match its hash" in node.events.troubles[0][1]
    handle.close()


def test_a_torrent_gives_way_to_a_writer_and_goes_on_after_it(tmp_path: Path, seed: Side, blob: SomeBlob) -> None:
    node = make_side(tmp_path / "slow", download_rate_bytes_s=128 * KIB)
    node.store.before_write(node.swarms.give_way)
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: bool(handle.held), "a piece")
    last = next(piece for piece in reversed(range(blob.layout.count)) if not handle.held >> piece & 1)
    writer = handle.writer(last)
    held = handle.held
    fetch_another(seed, node)
    assert handle.held == held
    node.swarms.set_rates(0, 0)
    writer.write(memoryview(blob.piece(last)))
    writer.finish()
    wait_whole(handle)
    assert handle.check_digest()
    assert node.events.troubles == []
    handle.close()
    node.close()


def test_a_blob_that_somebody_writes_is_joined_when_that_ends(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, blob.hashes)
    node.store.before_write(node.swarms.give_way)
    node.swarms.blob_opened(blob.digest)
    writer = handle.writer(3)
    node.offer(blob)
    node.swarms.connect(blob.digest, [seed.address])
    fetch_another(seed, node)
    assert handle.held == 0
    writer.abort()
    wait_whole(handle)
    handle.close()


def test_a_blob_that_is_served_in_part_can_be_fetched(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    fill(node.store, blob, [1, 2]).close()
    node.offer(blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    handle.close()


def test_payload_is_reported_while_it_moves_before_a_piece_is_whole(tmp_path: Path, seed: Side) -> None:
    # Each piece takes half a minute.
    blob = some_blob(2 * MIB, piece_size_bytes=MIB)
    node = make_side(tmp_path / "slow", download_rate_bytes_s=32 * KIB)
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: len(node.events.moved) >= 2, "two words of payload")
    assert handle.held == 0
    assert node.events.pieces == []
    for digest, received_bytes, sent_bytes in list(node.events.moved):
        assert (digest, sent_bytes) == (blob.digest, 0)
        assert 0 < received_bytes < MIB
    wait_until(lambda: bool(seed.events.moved), "the other side's word")
    digest, received_bytes, sent_bytes = seed.events.moved[0]
    assert (digest, received_bytes) == (blob.digest, 0)
    assert sent_bytes > 0
    handle.close()
    node.close()


def test_where_nothing_moves_nothing_is_reported(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    wait_until(lambda: received(node, blob) >= SIZE_BYTES, "all that came is reported")
    reports = list(node.events.moved)
    another = fetch_another(seed, node)
    assert [moved for moved in node.events.moved if moved[0] != another.digest] == reports
    handle.close()


def test_downloads_keep_to_the_limit_also_between_private_addresses(tmp_path: Path, seed: Side, blob: SomeBlob) -> None:
    node = make_side(tmp_path / "slow", download_rate_bytes_s=1 * MIB)
    seeded(seed, blob)
    started_s = time.monotonic()
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    assert time.monotonic() - started_s >= 1.5
    handle.close()
    node.close()


def test_a_complete_blob_is_served_without_a_pin_in_the_store(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    assert handle.check_digest()
    node.swarms.blob_complete(blob.digest)
    handle.close()
    wait_until(lambda: node.store.remove(blob.digest), "the store may let go of it")


def test_what_was_forgotten_is_not_joined_again(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.blob_voided(blob.digest)
    node.swarms.blob_opened(blob.digest)
    node.swarms.connect(blob.digest, [seed.address])
    fetch_another(seed, node)
    assert handle.held == 0
    handle.close()


def test_a_port_that_is_taken_is_said_so(seed: Side) -> None:
    with pytest.raises(ConfigError, match="name one that is free here"):
        TorrentSwarms(
            seed.store,
            HostPort("127.0.0.1", seed.swarms.port),
            SessionLimits(slots=1, connections_max=1),
            RecordedEvents(),
        )
