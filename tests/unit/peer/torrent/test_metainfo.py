"""Metainfo made here, against what libtorrent makes of the same file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libtorrent
import pytest

from peer.torrent.metainfo import fits_torrent, secret_of
from proto.ids import Digest
from proto.pieces import KIB, PieceLayout
from proto.wire.tickets import Identity
from tests.support.blobs import some_blob
from tests.support.torrents import metainfo_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.blobs import SomeBlob

SIZES = (1, 16 * KIB, 16 * KIB + 1, 100_000, 64 * KIB, 64 * KIB + 1, 300_001, 7 * 64 * KIB)


class Made:
    """A decoded torrent file."""

    def __init__(self, decoded: object) -> None:
        self._decoded = decoded

    def of(self, *path: bytes) -> object:
        """What stands under these keys; None where one is missing."""
        found = self._decoded
        for key in path:
            assert isinstance(found, dict)
            found = found.get(key)
        return found


def made_by_libtorrent(folder: Path, blob: SomeBlob) -> Made:
    """Of the same file."""
    file = folder / blob.digest.hex
    file.write_bytes(blob.content)
    entries = libtorrent.list_files(str(file))
    creator = libtorrent.create_torrent(entries, blob.layout.piece_size_bytes, libtorrent.create_torrent.v2_only)
    libtorrent.set_piece_hashes(creator, str(folder))
    return Made(creator.generate())


@pytest.mark.parametrize("size_bytes", SIZES)
def test_its_tree_of_hashes_is_libtorrents(tmp_path: Path, size_bytes: int) -> None:
    blob = some_blob(size_bytes, piece_size_bytes=64 * KIB)
    ours, theirs = Made(libtorrent.bdecode(metainfo_of(blob))), made_by_libtorrent(tmp_path, blob)
    name = blob.digest.hex.encode()
    assert ours.of(b"info", b"file tree", name) == theirs.of(b"info", b"file tree", name)
    assert ours.of(b"piece layers") == (theirs.of(b"piece layers") or {})


def test_it_is_the_same_again_and_another_for_another_supernode() -> None:
    blob, supernode = some_blob(300_000, piece_size_bytes=64 * KIB), Identity.generate()
    one = metainfo_of(blob, secret=secret_of(supernode, blob.digest))
    again = metainfo_of(blob, secret=secret_of(supernode, blob.digest))
    other = metainfo_of(blob, secret=secret_of(Identity.generate(), blob.digest))
    assert one == again
    assert one != other


def test_which_cuts_a_torrent_can_have() -> None:
    assert fits_torrent(PieceLayout.of(10_000_000))
    assert fits_torrent(PieceLayout.of(1))
    assert not fits_torrent(PieceLayout(0, 64 * KIB))
    assert not fits_torrent(PieceLayout(300_000, 100_000))
    assert not fits_torrent(PieceLayout(300_000, 4 * KIB))


def test_it_names_the_blob_by_its_digest() -> None:
    blob = some_blob(1000, piece_size_bytes=64 * KIB)
    info = libtorrent.load_torrent_buffer(metainfo_of(blob)).ti
    assert info is not None
    assert Digest.parse(f"sha256:{info.name()}") == blob.digest
    assert info.priv()
