"""What every blob store must do with pieces that a transport wrote into the file itself: derive AdoptionSuite.

It needs the fixture `store`, with room for everything here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from proto.errors import LocalError, PieceCorrupt
from tests.support.blobs import some_blob, write_piece

if TYPE_CHECKING:
    from peer.store.base import BlobStore


class AdoptionSuite:
    """Inherit."""

    def test_a_piece_that_is_in_the_file_already_can_be_adopted(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        for piece in (1, 0, 2):
            os.pwrite(handle.fileno(), blob.piece(piece), blob.layout.offset(piece))
            assert handle.adopt(piece)
        assert not handle.adopt(1)
        assert handle.held == 0b111
        assert handle.check_digest()
        handle.close()

    def test_wrong_bytes_are_not_adopted(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        os.pwrite(handle.fileno(), bytes(4096), 0)
        for piece in (0, 1):
            with pytest.raises(PieceCorrupt):
                handle.adopt(piece)
        assert handle.held == 0
        write_piece(handle, blob, 0)
        assert handle.held == 1
        handle.close()

    def test_what_no_hash_is_known_of_is_not_adopted(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        os.pwrite(handle.fileno(), blob.piece(0), 0)
        with pytest.raises(LocalError):
            handle.adopt(0)
        handle.close()

    def test_a_piece_that_a_writer_has_in_hand_is_not_adopted(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        writer = handle.writer(0)
        with pytest.raises(LocalError):
            handle.adopt(0)
        writer.abort()
        handle.close()
