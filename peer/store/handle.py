"""The handle that users of the store hold: a pin on one blob, and the way to everything that it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.store.base import SignedHashes
from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.blob import Blob, BlobHost
    from peer.store.writer import PieceWriter
    from proto.ids import Digest
    from proto.pieces import PieceLayout


class BlobHandle:
    """A blob in the store, pinned against eviction until close(). From any thread. Masks: bit i is piece i."""

    def __init__(self, host: BlobHost, blob: Blob) -> None:
        self._host = host
        self._blob = blob
        self._open = True
        self.digest: Digest = blob.digest
        self.layout: PieceLayout = blob.layout

    @property
    def held(self) -> int:
        """Mask of the pieces held now."""
        return self._blob.held

    @property
    def complete(self) -> bool:
        """The digest was checked here and the file has its final name."""
        return self._blob.complete

    @property
    def matched(self) -> bool:
        """The digest was checked here; the file may still be on its way to disk and to its final name."""
        return self._blob.matched

    @property
    def fresh(self) -> bool:
        """It was begun under the pins that hold it now: its bytes, if they are few, are still in memory."""
        return self._blob.fresh

    @property
    def being_written(self) -> bool:
        """A piece of it is in a writer's hand, or being adopted."""
        return self._blob.writers > 0

    def fileno(self) -> int:
        """The data file, for sendfile and pread, valid until close() (renaming does not disturb it)."""
        return self._blob.descriptor

    def learn_hashes(self, signed: SignedHashes) -> None:
        """Keep hashes whose signature the caller checked; later writers of these pieces are held to them.

        Raises PieceCorrupt when a held piece has another hash (void the blob), LocalError.
        """
        with self._blob.hash_book() as book:
            book.learn(signed, self._blob.held)

    def trust_hashes(self, first: int, hashes: bytes) -> None:
        """The same without a signature: computed here from the origin's own bytes."""
        self.learn_hashes(SignedHashes(first, hashes, b""))

    @property
    def signed_hashes(self) -> tuple[SignedHashes, ...]:
        """Raises LocalError."""
        with self._blob.hash_book() as book:
            return book.signed

    def signed_run(self, piece: int, pieces_max: int) -> SignedHashes | None:
        """A signed run of at most so many pieces with this one among them, the shortest first; None without one."""
        with self._blob.hash_book() as book:
            return book.signed_run(piece, pieces_max)

    def hash_of(self, piece: int) -> bytes | None:
        """The BLAKE3 hash expected of the piece, or None."""
        return self._blob.expected_hash(piece)

    def writer(self, piece: int, *, from_origin: bool = False) -> PieceWriter:
        """Start a piece, once before_write() let it. The writer keeps its own pin, until its finish() or abort().

        Raises LocalError when the piece's hash is not known, but for `from_origin` (hash computed).
        """
        return self._blob.begin(piece, from_origin=from_origin)

    def adopt(self, piece: int) -> bool:
        """A transport wrote the piece's bytes into the file itself (fileno()): check them and mark the piece held.

        True when this made it held. Raises PieceCorrupt (it stays missing), and LocalError also where its hash is not
        known or a writer has it in hand. Nobody else may write to the file while such a transport does: see
        DiskStore.before_write().
        """
        return self._blob.adopt(piece)

    def available_from(self, offset: int) -> int:
        """The end (exclusive) of the held bytes that run on from `offset` without a gap; `offset` when none."""
        if offset >= self.layout.size_bytes:
            return offset
        end = first_missing(self.held, offset // self.layout.piece_size_bytes) * self.layout.piece_size_bytes
        return max(offset, min(end, self.layout.size_bytes))

    def check_digest(self, on_match: Callable[[], None] | None = None) -> bool:
        """All pieces held: compare the blob's digest (reads only what was not hashed in passing).

        `on_match` is called when it has passed, before the disk is waited for: readers need not wait for that.
        True: fsync, rename, complete. False: the blob does not match; call void(). May take seconds: use a thread.
        Raises LocalError when pieces are missing or the disk is in trouble.
        """
        return self._blob.check_digest(on_match)

    def void(self) -> None:
        """Drop every piece and hash. A complete blob, whose digest was checked here, is left alone."""
        self._blob.void()

    def close(self) -> None:
        """Unpin. Idempotent."""
        if self._open:
            self._open = False
            self._host.unpin(self._blob)
