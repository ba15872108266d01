"""What a store of blobs offers, to the piece cutter, the downloader, the upload server and the client's stream.

Everything here is blocking and safe to call from any thread. It moves no bytes over a network and knows no scheduling.
A piece is held only after its hash passed, a blob complete only after its digest did. Piece masks: bit i is piece i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proto.ids import Digest
    from proto.pieces import PieceLayout


# Of a piece's BLAKE3.
HASH_BYTES: Final = 32
# Every piece that a blob may have, as a mask.
ALL_PIECES: Final = -1


@dataclass(frozen=True, slots=True)
class SignedHashes:
    """A run of piece hashes as the supernode signed them (proto.wire.tickets); kept so that peers can pass them on."""

    first: int
    hashes: bytes
    signature: bytes

    @property
    def count(self) -> int:
        """How many pieces."""
        return len(self.hashes) // HASH_BYTES

    @property
    def pieces(self) -> int:
        """Which (mask)."""
        return ((1 << self.count) - 1) << self.first


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One line of the inventory."""

    digest: Digest
    layout: PieceLayout
    held: int
    complete: bool


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes that lie in a file, in place of a view of them: the store may have the kernel copy them or share them."""

    descriptor: int
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> FileSlice:
        """A part of it, as of a memoryview."""
        start, stop, _ = part.indices(self.length)
        return FileSlice(self.descriptor, self.offset + start, max(0, stop - start))


Chunk = memoryview | FileSlice


class PieceWriter(Protocol):
    """Takes one piece's bytes in order; hashes, writes in place, and advances the blob's digest when it is next."""

    @property
    def remaining_bytes(self) -> int:
        """How many bytes of the piece are still to come."""
        ...

    def write(self, chunk: Chunk) -> None:
        """The next bytes of the piece. Raises StoreFull or LocalError; the piece then stays missing.

        Raises PieceCorrupt for a slice of a file that has become shorter.
        """
        ...

    def finish(self) -> bytes:
        """All bytes are in: check the hash and mark the piece held (durable against kill -9).

        Returns its BLAKE3 hash (32 bytes). Raises PieceCorrupt; the piece then stays missing.
        """
        ...

    @property
    def fresh(self) -> bool:
        """After finish(): whether this copy made the piece held; False when another one had been first."""
        ...

    def abort(self) -> None:
        """Forget what was written. Idempotent, and harmless after finish()."""
        ...


class BlobHandle(Protocol):
    """A blob in the store, pinned against eviction until close()."""

    @property
    def digest(self) -> Digest: ...

    @property
    def layout(self) -> PieceLayout: ...

    @property
    def held(self) -> int:
        """Mask of the pieces held now."""
        ...

    @property
    def complete(self) -> bool:
        """The digest was checked here and the file has its final name."""
        ...

    @property
    def matched(self) -> bool:
        """The digest was checked here; the file may still be on its way to disk and to its final name."""
        ...

    @property
    def fresh(self) -> bool:
        """It was begun under the pins that hold it now: its bytes, if they are few, are still in memory."""
        ...

    @property
    def in_use(self) -> bool:
        """Somebody else has it open too."""
        ...

    @property
    def being_written(self) -> bool:
        """A piece of it is in a writer's hand, or being adopted."""
        ...

    def fileno(self) -> int:
        """The data file, for sendfile and pread, valid until close() (renaming does not disturb it)."""
        ...

    def learn_hashes(self, signed: SignedHashes) -> None:
        """Keep hashes whose signature the caller checked; later writers of these pieces are held to them.

        Raises PieceCorrupt when a held piece has another hash (void the blob), LocalError.
        """
        ...

    def trust_hashes(self, first: int, hashes: bytes) -> None:
        """The same without a signature: computed here from the origin's own bytes. Raises as learn_hashes."""
        ...

    @property
    def signed_hashes(self) -> tuple[SignedHashes, ...]:
        """The signed runs by first piece, without those that lie inside another. Raises LocalError."""
        ...

    def signed_run(self, piece: int, pieces_max: int) -> SignedHashes | None:
        """The longest signed run of at most so many pieces that has this one, or None. Raises LocalError."""
        ...

    def hash_of(self, piece: int) -> bytes | None:
        """The BLAKE3 hash expected of the piece, or None. Raises LocalError."""
        ...

    def writer(self, piece: int, *, from_origin: bool = False, claim: bytes = b"") -> PieceWriter:
        """Start a piece, once before_write() let it. It keeps its own pin: it must come to finish() or abort().

        Raises LocalError when the piece's hash is not known, but for `from_origin` (hash computed) and with a `claim`:
        the hash that it is held to where none is known.
        """
        ...

    def adopt(self, piece: int) -> bool:
        """A transport wrote the piece's bytes into the file itself (fileno()): check them and mark the piece held.

        True when this made it held. Raises PieceCorrupt (it stays missing), and LocalError also where its hash is not
        known or a writer has it in hand. Nobody else may write to the file while such a transport does: see
        BlobStore.before_write().
        """
        ...

    def available_from(self, offset: int) -> int:
        """The end (exclusive) of the held bytes that run on from `offset` without a gap; `offset` when none."""
        ...

    def check_digest(self, on_match: Callable[[], None] | None = None) -> bool:
        """All pieces held: compare the blob's digest (reads only what was not hashed in passing).

        `on_match` is called when it has passed, before the disk is waited for: readers need not wait for that.
        True: fsync, rename, complete. False: the blob does not match; call void(), unless pieces are missing now that
        were found rotten on this disk. May take seconds: use a thread.
        Raises LocalError when pieces are missing or the disk is in trouble.
        """
        ...

    def check_mark(self, *, for_peer: bool = False) -> float:
        """Somebody begins to read, a client or a peer: from when on the check of a piece counts for it (store's clock).

        Nothing was ever checked of a complete file that somebody else wrote to.
        """
        ...

    def unchecked(self, mark: float, pieces: int = ALL_PIECES) -> int:
        """Those of these pieces (mask) that are held and were not checked since then; all, after a start."""
        ...

    @property
    def losses(self) -> int:
        """How often held pieces were lost to rot while somebody had the blob open."""

    def lost_since(self, losses: int) -> int:
        """The pieces (mask) that were lost since there were so many losses."""

    def checked_from(self, offset: int, mark: float) -> int:
        """The end (exclusive) of the bytes from `offset` on in pieces checked since then; `offset` when none."""
        ...

    @property
    def checked_every_time(self) -> bool:
        """No check counts for another client, or for a later byte: each is sent what read_checked() gives it."""
        ...

    def read_checked(self, piece: int) -> memoryview | None:
        """The piece in memory of its own, compared with its hash there; what becomes of the file then is no matter.

        None where it is not held, or is not any more: a rotten one is dropped and counted. Raises LocalError when the
        hashes cannot be read.
        """
        ...

    def check_pieces(self, pieces: int, found_by: str) -> int:
        """Read held pieces (mask) again. Those that are rotten or unreadable are dropped, counted and returned (mask).

        A complete blob that loses pieces is partial from then on. `found_by`: one of peer.store.counters.FOUND_BY.
        Raises LocalError when the hashes cannot be read.
        """
        ...

    def void(self) -> None:
        """Drop every piece and hash. A complete blob, whose digest was checked here, is left alone."""
        ...

    def close(self) -> None:
        """Unpin. Idempotent."""
        ...


class BlobStore(Protocol):
    """Blobs on one disk, within a size limit and above a free-disk floor."""

    def inventory(self) -> list[StoredBlob]:
        """What is held. It is checked when it is used."""
        ...

    def get(self, digest: Digest, *, used: bool = True) -> BlobHandle | None:
        """Pin what is there, partial or complete. Not `used`: its turn of eviction stays what it was."""
        ...

    def open(self, digest: Digest, layout: PieceLayout, *, waits_on: Callable[[], bool] = lambda: False) -> BlobHandle:
        """Pin what is there, or begin it. A complete blob comes with its own layout, whatever was asked for.

        A partial one of another layout is dropped. Where it would fit beside what is still being fetched, but not
        beside blobs that are read, checked or written to disk for good, it waits for these while `waits_on` says so,
        which is asked then alone. Raises StoreFull, or LocalError: disk trouble, or it is pinned; and what `waits_on`
        raises, by which nothing is changed.
        """
        ...

    def remove(self, digest: Digest) -> bool:
        """Evict by hand; False when it is pinned, kept or absent."""
        ...

    @property
    def kept(self) -> frozenset[Digest]:
        """What keep() said last, in this start of the process or an earlier one."""
        ...

    def keep(self, digests: Iterable[Digest]) -> None:
        """Evict none of these for room or by hand, here or yet to come; in place of those before. Raises LocalError."""
        ...

    def suspect(self, digest: Digest, pieces: int) -> None:
        """Somebody has cause to doubt held pieces (mask): they are read again soon. Returns at once."""
        ...

    @property
    def used_bytes(self) -> int: ...

    def on_evicted(self, callback: Callable[[Digest], None]) -> None:
        """Called from any thread after a blob left the store, with no lock of the store held."""
        ...

    def on_rotten(self, callback: Callable[[Digest, int], None]) -> None:
        """Called from any thread after held pieces (mask) of a blob were found rotten and dropped.

        The blob cannot become complete meanwhile.
        """
        ...

    def before_write(self, callback: Callable[[Digest], None]) -> None:
        """Called from any thread before a writer begins, with `being_written` already set; it may wait.

        A transport that writes to the file itself gives way there; a LocalError that it raises refuses the writer.
        No lock of the store is held.
        """
        ...

    def on_want_of_room(self, close_idle: Callable[[], None]) -> None:
        """Before a blob is refused for those that are open, from any thread: close the handles that nobody uses.

        The store's lock is held: what is called may close handles, and wait for nobody else.
        """
        ...
