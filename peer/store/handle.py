"""The handle that users of the store hold: a pin on one blob, and the way to everything that it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import SignedHashes
    from peer.store.blob import Blob, BlobHost
    from peer.store.writer import Writer
    from proto.ids import Digest
    from proto.pieces import PieceLayout


class DiskBlobHandle:
    """See peer.store.base.BlobHandle."""

    def __init__(self, host: BlobHost, blob: Blob) -> None:
        self._host = host
        self._blob = blob
        self._open = True

    @property
    def digest(self) -> Digest:
        return self._blob.digest

    @property
    def layout(self) -> PieceLayout:
        return self._blob.layout

    @property
    def held(self) -> int:
        return self._blob.held

    @property
    def complete(self) -> bool:
        return self._blob.complete

    @property
    def matched(self) -> bool:
        return self._blob.matched

    @property
    def fresh(self) -> bool:
        return self._blob.fresh

    def fileno(self) -> int:
        return self._blob.descriptor

    def learn_hashes(self, signed: SignedHashes) -> None:
        """See BlobHandle. Raises PieceCorrupt when a held piece has another hash (void the blob), LocalError."""
        self._blob.learn(signed.first, signed.hashes, signed.signature)

    def trust_hashes(self, first: int, hashes: bytes) -> None:
        """See BlobHandle. Raises as learn_hashes."""
        self._blob.learn(first, hashes, b"")

    @property
    def signed_hashes(self) -> tuple[SignedHashes, ...]:
        return self._blob.signed_hashes

    def signed_run(self, piece: int, pieces_max: int) -> SignedHashes | None:
        return self._blob.signed_run(piece, pieces_max)

    def hash_of(self, piece: int) -> bytes | None:
        return self._blob.expected_hash(piece)

    @property
    def being_written(self) -> bool:
        return self._blob.writers > 0

    def writer(self, piece: int, *, from_origin: bool = False) -> Writer:
        """See BlobHandle. It keeps its own pin: every writer must come to finish() or abort()."""
        return self._blob.begin(piece, from_origin=from_origin)

    def adopt(self, piece: int) -> bool:
        return self._blob.adopt(piece)

    def available_from(self, offset: int) -> int:
        layout = self._blob.layout
        if offset >= layout.size_bytes:
            return offset
        end = first_missing(self._blob.held, offset // layout.piece_size_bytes) * layout.piece_size_bytes
        return max(offset, min(end, layout.size_bytes))

    def check_digest(self, on_match: Callable[[], None] | None = None) -> bool:
        """See BlobHandle. Raises LocalError when pieces are missing or the disk is in trouble."""
        return self._blob.check_digest(on_match)

    def void(self) -> None:
        """See BlobHandle. A complete blob, whose digest was checked here, is left alone."""
        self._blob.void()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._host.unpin(self._blob)
