"""What a node believes of a torrent that it is told of, and what it keeps."""

from __future__ import annotations

import pytest

from peer.torrent.metainfo_cache import MetainfoCache
from proto.ids import Digest
from proto.pieces import KIB, PieceLayout
from tests.support.blobs import some_blob
from tests.support.torrents import metainfo_of

BLOB = some_blob(300_000, piece_size_bytes=64 * KIB)


def test_a_torrent_of_the_blob_in_its_cut_is_kept_with_its_peers() -> None:
    cache = MetainfoCache()
    assert cache.add(BLOB.digest, BLOB.layout, metainfo_of(BLOB))
    cache.add_peers(BLOB.digest, ["10.0.0.1:7000"])
    # RecordedEvents again, in the next session.
    assert cache.add(BLOB.digest, BLOB.layout, metainfo_of(BLOB))
    known = cache.get(BLOB.digest)
    assert known is not None
    assert (known.metainfo, known.peers) == (metainfo_of(BLOB), ("10.0.0.1:7000",))
    cache.forget(BLOB.digest)
    assert cache.get(BLOB.digest) is None


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
    cache = MetainfoCache()
    assert not cache.add(digest, layout, metainfo)
    assert cache.get(digest) is None
