"""What the supernode signs for a piece that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.store.disk import DiskStore
from proto.wire.tickets import Identity, check_hashes
from supernode.signer import IdentitySigner
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from pathlib import Path


def test_the_neighbours_that_are_held_are_signed_with_a_piece(tmp_path: Path) -> None:
    blob, signer = some_blob(10_000, piece_size_bytes=1000), IdentitySigner(Identity.generate())
    store = DiskStore(tmp_path, size_limit_bytes=1 << 20, free_floor_bytes=0)
    handle = store.open(blob.digest, blob.layout)
    runs = []
    for piece in (5, 3, 4, 7, 6, 9):
        writer = handle.writer(piece, from_origin=True)
        writer.write(memoryview(blob.content)[piece * 1000 : (piece + 1) * 1000])
        writer.finish()
        signed = signer.sign_held(handle, piece)
        assert signed is not None
        check_hashes(signer.peer, blob.digest, blob.layout, signed.first, signed.hashes, signed.signature)
        runs.append((piece, signed.first, signed.count))
    # No more than four, of which a node learns all whichever of them it gets.
    assert runs == [(5, 5, 1), (3, 3, 1), (4, 4, 2), (7, 7, 1), (6, 4, 4), (9, 9, 1)]
    assert signer.sign_held(handle, 0) is None
    handle.close()
    store.close()
