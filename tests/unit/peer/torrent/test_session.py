"""What a node believes of a torrent that it is told of."""

from __future__ import annotations

import pytest

from peer.torrent.session import is_torrent_of
from proto.ids import Digest
from proto.pieces import KIB, PieceLayout
from tests.support.blobs import some_blob
from tests.support.torrents import metainfo_of

BLOB = some_blob(300_000, piece_size_bytes=64 * KIB)


def test_a_torrent_of_the_blob_in_its_cut_is_one() -> None:
    assert is_torrent_of(metainfo_of(BLOB), BLOB.digest, BLOB.layout)


@pytest.mark.parametrize(
    ("digest", "layout", "metainfo"),
    [
        (Digest.of(b"another"), BLOB.layout, metainfo_of(BLOB)),
        (BLOB.digest, PieceLayout(300_001, 64 * KIB), metainfo_of(BLOB)),
        (BLOB.digest, PieceLayout(300_000, 128 * KIB), metainfo_of(BLOB)),
        (BLOB.digest, BLOB.layout, b"nonsense"),
        (BLOB.digest, BLOB.layout, b""),
    ],
)
def test_another_torrent_is_not(digest: Digest, layout: PieceLayout, metainfo: bytes) -> None:
    assert not is_torrent_of(metainfo, digest, layout)
