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
    from proto.ids import Digest


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

    def test_a_writer_waits_for_who_writes_to_the_file_itself(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        asked = []

        def give_way(digest: Digest) -> None:
            asked.append((digest, handle.being_written))

        store.before_write(give_way)
        writer = handle.writer(0)
        assert asked == [(blob.digest, True)]
        writer.abort()
        assert not handle.being_written
        os.pwrite(handle.fileno(), blob.piece(1), blob.layout.offset(1))
        assert handle.adopt(1)
        assert len(asked) == 1, "who adopts is asked for nothing"
        assert not handle.being_written
        handle.close()

    def test_a_writer_is_refused_where_the_file_is_not_given_up(self, store: BlobStore) -> None:
        blob = some_blob(10_000, piece_size_bytes=4096)
        handle = store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)

        def refuse(digest: Digest) -> None:
            raise LocalError("in use")

        store.before_write(refuse)
        with pytest.raises(LocalError, match="in use"):
            handle.writer(0)
        assert not handle.being_written
        handle.close()
        assert store.remove(blob.digest), "no pin is left"
