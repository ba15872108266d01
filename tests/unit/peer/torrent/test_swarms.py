"""Whole blobs by BitTorrent: into the store's file, checked there, given way, limited, served on."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from peer.store.disk import DiskStore
from proto.config.values import HostPort
from proto.errors import ConfigError
from proto.pieces import KIB, MIB
from tests.support.blobs import SomeBlob, fill, some_blob, write_piece
from tests.support.processes import wait_until
from tests.support.torrents import Told, metainfo_of, torrent_swarms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle
    from peer.torrent.swarms import TorrentSwarms

SIZE_BYTES = 3 * MIB + 5
WAIT_S = 20.0


@dataclass
class Side:
    """One node."""

    store: DiskStore
    swarms: TorrentSwarms
    told: Told = field(default_factory=Told)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.swarms.port}"

    def told_of(self, blob: SomeBlob) -> None:
        assert self.swarms.offer(blob.digest, blob.layout, metainfo_of(blob))

    def close(self) -> None:
        self.swarms.close()
        self.store.close()


def make_side(folder: Path, *, download_rate_bytes_s: int = 0) -> Side:
    store, told = DiskStore(folder, size_limit_bytes=1 << 30, free_floor_bytes=0), Told()
    return Side(store, torrent_swarms(store, told, download_rate_bytes_s=download_rate_bytes_s), told)


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
    seed.told_of(blob)
    seed.swarms.join(blob.digest, whole=False)


def wanted(node: Side, blob: SomeBlob) -> BlobHandle:
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, blob.hashes)
    node.told_of(blob)
    node.swarms.join(blob.digest, whole=True)
    return handle


def wait_whole(handle: BlobHandle, timeout_s: float = WAIT_S) -> None:
    wait_until(lambda: handle.held == handle.layout.full_mask, "every piece", timeout_s)


def test_a_blob_comes_whole_and_each_piece_is_told_of_once(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    wait_until(lambda: len(node.told.pieces) == blob.layout.count, "the reports", WAIT_S)
    assert sorted(piece for _, piece, _ in node.told.pieces) == list(range(blob.layout.count))
    assert sum(size_bytes for _, _, size_bytes in node.told.pieces) == SIZE_BYTES
    assert handle.check_digest()
    handle.close()


@pytest.mark.parametrize("joined_before", [True, False])
def test_pieces_that_are_to_come_first_do(seed: Side, tmp_path: Path, blob: SomeBlob, joined_before: bool) -> None:
    node = make_side(tmp_path / "slow", download_rate_bytes_s=MIB)
    seeded(seed, blob)
    first = range(10, 13)
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, blob.hashes)
    node.told_of(blob)
    if joined_before:
        node.swarms.join(blob.digest, whole=True)
    node.swarms.connect(blob.digest, [seed.address], first)
    node.swarms.join(blob.digest, whole=True)
    wait_until(lambda: len(node.told.pieces) >= len(first) + 2, "pieces", WAIT_S)
    # One or two others may be asked for with the last of them.
    assert set(first) <= {piece for _, piece, _ in node.told.pieces[: len(first) + 2]}
    handle.close()
    node.close()


def test_an_honest_peer_that_is_blamed_with_a_liar_is_met_again(seed: Side, tmp_path: Path) -> None:
    """About every second node shuts out both: so there are a few."""
    blob = some_blob(6 * MIB, piece_size_bytes=256 * KIB)
    seeded(seed, blob)
    with ExitStack() as closing:
        liar, *nodes = (make_side(tmp_path / f"node-{number}") for number in range(5))
        for side in (liar, *nodes):
            closing.callback(side.close)
        seeded(liar, blob)
        stored = next(path for path in (tmp_path / "node-0").rglob(f"*{blob.digest.hex}*") if path.stat().st_size > MIB)
        with stored.open("r+b") as file:
            file.write(bytes(4 * MIB))
        handles = [wanted(node, blob) for node in nodes]
        for handle in handles:
            closing.callback(handle.close)
        for node in nodes:
            node.swarms.connect(blob.digest, [seed.address, liar.address])
        for handle in handles:
            # Each try is 4 s, and a turn of the seed's at serving somebody else 5: up to half a minute here.
            wait_whole(handle, 90.0)


def test_what_the_store_holds_is_not_fetched_again(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    fill(node.store, blob, [0, 3, 12]).close()
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    assert not {0, 3, 12} & {piece for _, piece, _ in node.told.pieces}
    handle.close()


def test_a_node_that_holds_a_part_serves_it(seed: Side, node: Side, blob: SomeBlob) -> None:
    fill(seed.store, blob, [1, 2]).close()
    seed.told_of(blob)
    seed.swarms.join(blob.digest, whole=False)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: handle.held == 0b110, "two pieces", WAIT_S)
    assert node.told.troubles == []
    handle.close()


def test_wrong_bytes_of_a_seed_are_never_held(seed: Side, node: Side, blob: SomeBlob) -> None:
    source = fill(seed.store, blob)
    os.pwrite(source.fileno(), bytes(MIB), 0)
    source.close()
    seed.told_of(blob)
    seed.swarms.join(blob.digest, whole=False)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    time.sleep(1.0)
    assert handle.held & 0b1111 == 0
    handle.close()


def test_content_that_libtorrent_believes_is_checked_once_more(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = node.store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, bytes(32) + blob.hashes[32:])
    node.told_of(blob)
    node.swarms.join(blob.digest, whole=True)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: bool(node.told.troubles), "the trouble", WAIT_S)
    assert not handle.held & 1
    assert "does not match its hash" in node.told.troubles[0][1]
    handle.close()


def test_who_gives_way_leaves_the_file_to_others(tmp_path: Path, seed: Side, blob: SomeBlob) -> None:
    node = make_side(tmp_path / "slow", download_rate_bytes_s=512 * KIB)
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: bool(handle.held), "a piece", WAIT_S)
    assert node.swarms.leave(blob.digest).wait(WAIT_S)
    held = handle.held
    for piece in range(blob.layout.count):
        if not held >> piece & 1:
            write_piece(handle, blob, piece)
    node.swarms.join(blob.digest, whole=True)
    assert handle.check_digest()
    assert node.told.troubles == []
    handle.close()
    node.close()


def test_payload_is_told_of_while_it_moves_before_a_piece_is_whole(tmp_path: Path, seed: Side) -> None:
    # Each piece takes half a minute.
    blob = some_blob(2 * MIB, piece_size_bytes=MIB)
    node = make_side(tmp_path / "slow", download_rate_bytes_s=32 * KIB)
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_until(lambda: len(node.told.moved) >= 2, "two words of payload", WAIT_S)
    assert handle.held == 0
    assert node.told.pieces == []
    for digest, received_bytes, sent_bytes in list(node.told.moved):
        assert (digest, sent_bytes) == (blob.digest, 0)
        assert 0 < received_bytes < MIB
    wait_until(lambda: bool(seed.told.moved), "the other side's word", WAIT_S)
    digest, received_bytes, sent_bytes = seed.told.moved[0]
    assert (digest, received_bytes) == (blob.digest, 0)
    assert sent_bytes > 0
    handle.close()
    node.close()


def received(node: Side) -> int:
    return sum(received_bytes for _, received_bytes, _ in node.told.moved)


def test_where_nothing_moves_nothing_is_told(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.connect(blob.digest, [seed.address])
    wait_whole(handle)
    wait_until(lambda: received(node) >= SIZE_BYTES, "all that came is told of", WAIT_S)
    told = len(node.told.moved)
    # Two looks at the counters.
    time.sleep(2.5)
    assert len(node.told.moved) == told
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
    node.swarms.finished(blob.digest)
    handle.close()
    wait_until(lambda: node.store.remove(blob.digest), "the store may let go of it", WAIT_S)


def test_what_was_forgotten_is_not_joined_again(seed: Side, node: Side, blob: SomeBlob) -> None:
    seeded(seed, blob)
    handle = wanted(node, blob)
    node.swarms.forget(blob.digest)
    assert not node.swarms.knows(blob.digest)
    node.swarms.join(blob.digest, whole=True)
    node.swarms.connect(blob.digest, [seed.address])
    time.sleep(0.5)
    assert handle.held == 0
    handle.close()


def test_a_port_that_is_taken_is_said_so(seed: Side, tmp_path: Path) -> None:
    from peer.torrent.swarms import TorrentSwarms

    with pytest.raises(ConfigError, match="name one that is free here"):
        TorrentSwarms(
            seed.store,
            HostPort("127.0.0.1", seed.swarms.port),
            slots=1,
            connections_max=1,
            upload_rate_bytes_s=0,
            download_rate_bytes_s=0,
            on_piece=lambda digest, piece, size_bytes: None,
            on_trouble=lambda digest, message: None,
            on_moved=lambda digest, received_bytes, sent_bytes: None,
        )
