"""The handle that users of the store hold: a pin on one blob, and the way to everything that it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.store.base import ALL_PIECES, SignedHashes
from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self.digest: Digest = blob.digest
        self.layout: PieceLayout = blob.layout

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

    @property
    def in_use(self) -> bool:
        return self._blob.pins > 1

    @property
    def being_written(self) -> bool:
        return self._blob.writers > 0

    def fileno(self) -> int:
        return self._blob.descriptor

    def learn_hashes(self, signed: SignedHashes) -> None:
        with self._blob.stored_hashes() as hashes:
            hashes.learn(signed, self._blob.held)

    def trust_hashes(self, first: int, hashes: bytes) -> None:
        self.learn_hashes(SignedHashes(first, hashes, b""))

    @property
    def signed_hashes(self) -> tuple[SignedHashes, ...]:
        with self._blob.stored_hashes() as hashes:
            return hashes.signed

    def signed_run(self, piece: int, pieces_max: int) -> SignedHashes | None:
        with self._blob.stored_hashes() as hashes:
            return hashes.signed_run(piece, pieces_max)

    def hash_of(self, piece: int) -> bytes | None:
        return self._blob.expected_hash(piece)

    def writer(self, piece: int, *, from_origin: bool = False, claim: bytes = b"") -> Writer:
        return self._blob.begin(piece, from_origin=from_origin, claim=claim)

    def adopt(self, piece: int) -> bool:
        return self._blob.adopt(piece)

    def available_from(self, offset: int) -> int:
        if offset >= self.layout.size_bytes:
            return offset
        end = first_missing(self.held, offset // self.layout.piece_size_bytes) * self.layout.piece_size_bytes
        return max(offset, min(end, self.layout.size_bytes))

    def check_digest(self, on_match: Callable[[], None] | None = None) -> bool:
        return self._blob.check_digest(on_match)

    def check_mark(self, *, for_peer: bool = False) -> float:
        return self._blob.check_mark(for_peer=for_peer)

    def unchecked(self, mark: float, pieces: int = ALL_PIECES) -> int:
        return self._blob.checks.older(self._blob.held & pieces, mark)

    @property
    def losses(self) -> int:
        return len(self._blob.losses)

    def lost_since(self, losses: int) -> int:
        return self._blob.lost_since(losses)

    def checked_from(self, offset: int, mark: float) -> int:
        if offset >= self.layout.size_bytes:
            return offset
        run_end = self._blob.checks.run_end(offset // self.layout.piece_size_bytes, mark)
        return max(offset, min(run_end * self.layout.piece_size_bytes, self.layout.size_bytes))

    @property
    def checked_every_time(self) -> bool:
        return self._host.verify_after_s(for_peer=False) <= 0

    def read_checked(self, piece: int) -> memoryview | None:
        return self._blob.read_checked(piece)

    def check_pieces(self, pieces: int, found_by: str) -> int:
        return self._blob.check_pieces(pieces, found_by)

    def void(self) -> None:
        self._blob.void()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._host.unpin(self._blob)
