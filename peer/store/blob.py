"""What the store knows of one blob: which pieces are held, who writes which, how far the digest is, what has rotted.

A Blob is shared by all its handles and writers; it is loaded at the first pin and unloaded at the last. Order of a
piece's end, so that kill -9 at any moment loses no verified piece and holds no other: bytes, hash, held bit. Its files
are changed by peer.store.blob_files.
A held piece that is found rotten is missing again, and a complete blob partial. Eviction and room are the store's
(peer.store.disk).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import operator
import os
import threading
from typing import TYPE_CHECKING, Protocol

from peer.store.base import SignedHashes
from peer.store.blob_files import BlobFiles
from peer.store.checks import PieceChecks
from peer.store.digest import PrefixDigest, hash_piece
from peer.store.files import CHUNK_BYTES, local_error
from peer.store.recheck import read_right, rotten_pieces
from peer.store.writer import Place, Writer
from proto.errors import LocalError
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash
    from pathlib import Path

    from peer.store.blob_files import BlobMeta
    from peer.store.hashes import StoredHashes
    from peer.store.paths import BlobPaths
    from proto.ids import Digest

log = logging.getLogger(__name__)


class BlobHost(Protocol):
    """The store, as its blobs see it."""

    def pin(self, blob: Blob) -> None: ...

    def unpin(self, blob: Blob) -> None: ...

    def want_room(self, blob: Blob, size_bytes: int) -> None:
        """Before a piece is begun. Raises StoreFull."""
        ...

    def make_room(self, size_bytes: int) -> bool: ...

    def about_to_write(self, blob: Blob) -> None:
        """Before a writer begins; it may wait. Raises LocalError when the file is in somebody else's hand."""
        ...

    def request_digest(self, blob: Blob) -> None:
        """Pieces are held that the digest has not taken yet."""
        ...

    def clock(self) -> float:
        """Monotonic seconds."""
        ...

    def verify_after_s(self, *, for_peer: bool) -> float:
        """How long the check of a piece counts."""
        ...

    def found_rotten(self, blob: Blob, pieces: int, found_by: str) -> None:
        """Pieces (mask) that were held do not match any more, and are missing now."""
        ...


class Blob:
    """`pins` and `loaded` belong to the store; everything else is guarded by the blob's own lock."""

    def __init__(self, host: BlobHost, digest: Digest, meta: BlobMeta, paths: BlobPaths) -> None:
        self.digest = digest
        self.layout = meta.layout
        self.boot_id = meta.boot_id
        self.pins = 0
        self.loaded = False
        self.load_lock = threading.Lock()
        self.held = 0
        self.complete = False
        # The digest has passed; `complete` follows when the disk has it all.
        self.matched = False
        # Begun, and not unloaded since.
        self.fresh = False
        self._host = host
        self.paths = paths
        self._lock = threading.Lock()
        # Also against pieces that are dropped while the digest is compared, which may find them itself.
        self._check_lock = threading.RLock()
        self._catch_lock = threading.Lock()
        self._prefix = PrefixDigest(digest)
        self._owners: dict[int, Writer] = {}
        # Writers in hand, of any piece.
        self.writers = 0
        # Grows with each void() and unload(): what was begun before must not mark anything after.
        self._generation = 0
        self._files = BlobFiles(digest, meta.layout, paths)
        self.checks = PieceChecks(meta.layout.count)
        # Masks of pieces that were lost to rot, in their order, while the blob is loaded.
        self.losses: list[int] = []
        # Of a complete blob: when its file changed (ctime), as we left it, and when its bytes were last known to be
        # right, by the clock on the wall. The file's mtime tells that to the next start.
        self.changed_ns = self.checked_ns = 0

    # --- from disk, and back -----------------------------------------------------------------------------------

    def scan(self) -> None:
        """Take held and complete from the files, at start. Raises MetaCorrupt, OSError."""
        self.held, status = self._files.scan()
        if status is not None:
            self.complete = True
            self.changed_ns, self.checked_ns = status.st_ctime_ns, status.st_mtime_ns

    def create(self) -> None:
        """Begin the blob's files, which stay open. Raises OSError."""
        try:
            self._files.create(self.boot_id)
        except BaseException:
            self.unload()
            raise
        self.loaded = self.fresh = True

    def load(self) -> None:
        """Open the files. What a partial blob holds is checked before it is used (`checks`). Raises OSError."""
        try:
            self._files.open(complete=self.complete)
            if not self.complete:
                self._drop_unhashed()
        except BaseException:
            self.unload()
            raise
        self.loaded = True

    def unload(self) -> None:
        with self._lock:
            self._files.close()
            self._prefix = PrefixDigest(self.digest)
            self._generation += 1
            self.losses = []
            self.loaded = self.fresh = False

    def _drop_unhashed(self) -> None:
        """A piece whose hash is not known cannot be checked."""
        held = self.held & self._files.hashes.known
        if held != self.held:
            lost = (self.held & ~held).bit_count()
            log.warning("store: blob %s lost %d pieces whose hashes are gone", self.digest.short, lost)
            self.held = held
            self._files.write_held(held)

    # --- hashes ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def stored_hashes(self) -> Iterator[StoredHashes]:
        """Under the blob's lock. Raises LocalError for trouble with the disk."""
        with self._lock:
            try:
                yield self._files.hashes
            except OSError as error:
                raise local_error(error, f"hashes of blob {self.digest.short}") from None

    def expected_hash(self, piece: int) -> bytes | None:
        """32 bytes, or None. Raises LocalError."""
        with self.stored_hashes() as hashes:
            return hashes.of(piece)

    # --- writing (peer.store.writer.WriterHost) ----------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """The data file."""
        return self._files.data

    @property
    def aside_folder(self) -> Path:
        """Where unnamed files may be made, on the blob's own disk."""
        return self.paths.partial.parent

    def make_room(self, size_bytes: int) -> bool:
        return self._host.make_room(size_bytes)

    def begin(self, piece: int, *, from_origin: bool, claim: bytes = b"") -> Writer:
        length = self.layout.length(piece)
        if not self.held >> piece & 1:
            self._host.want_room(self, length)
        with self._hand():
            self._host.about_to_write(self)
            with self._lock:
                # A partial blob's hashes were read when it was loaded; of a complete one nothing is written any more.
                if from_origin or claim or self.complete or self._files.hashes.of(piece) is not None:
                    return self._begin(piece, claim)
            raise LocalError(f"piece {piece} of blob {self.digest.short}: its hash is not known yet")

    @contextlib.contextmanager
    def _hand(self) -> Iterator[None]:
        """What a writer takes, returned by leave(), or here if no writer comes of it."""
        self._host.pin(self)
        with self._lock:
            self.writers += 1
        try:
            yield
        except BaseException:
            self._put_back()
            raise

    def _put_back(self) -> None:
        with self._lock:
            self.writers -= 1
        self._host.unpin(self)

    def _begin(self, piece: int, claim: bytes) -> Writer:
        if self.held >> piece & 1:
            place = Place.NOWHERE
        elif piece in self._owners:
            place = Place.ASIDE
        else:
            place = Place.HERE
        prefix = self._prefix if place is Place.HERE else None
        writer = Writer(self, piece, self._generation, place, prefix, claim)
        if place is Place.HERE:
            self._owners[piece] = writer
        return writer

    def adopt(self, piece: int) -> bool:
        """See BlobHandle: a writer that finds its bytes in place."""
        if self.held >> piece & 1:
            return False
        with self._hand():
            # The transport asked nobody for the room it took.
            self._host.want_room(self, 0)
            with self._lock:
                if piece in self._owners or self._files.hashes.of(piece) is None:
                    raise LocalError(f"piece {piece} of blob {self.digest.short}: in hand, or of unknown hash")
                writer = Writer(self, piece, self._generation, Place.NOWHERE, self._prefix)
                self._owners[piece] = writer
        writer.take_what_is_there()
        return writer.fresh

    def digest_ahead(self, prefix: PrefixDigest, piece: int) -> _Hash | None:
        """See WriterHost."""
        with self._lock:
            return prefix.ahead(piece)

    def commit(self, writer: Writer, piece_hash: bytes) -> bool:
        """See WriterHost. Raises LocalError."""
        piece = writer.piece
        with self._lock:
            if writer.generation != self._generation:
                raise LocalError(f"blob {self.digest.short} was voided while piece {piece} arrived: ask for it again")
            if self.held >> piece & 1:
                return False
            owner = self._owners.get(piece)
            if owner is not writer:
                if owner is not None:
                    owner.settle()
                writer.copy_into_place()
            try:
                self._files.hashes.learn(SignedHashes(piece, piece_hash, b""), self.held)
                held = self.held | 1 << piece
                self._files.add_held(piece, held)
                self.held = held
            except OSError as error:
                raise local_error(error, f"piece {piece} of blob {self.digest.short}") from None
            self.checks.passed(piece, self._host.clock(), self.checks.forgotten)
            writer.commit_digest()
            behind = self.held >> self._prefix.pieces & 1
        if behind:
            self._host.request_digest(self)
        return True

    def leave(self, writer: Writer) -> None:
        with self._lock:
            if self._owners.get(writer.piece) is writer:
                del self._owners[writer.piece]
        self._put_back()

    # --- the digest --------------------------------------------------------------------------------------------

    def catch_up(self, buffer: memoryview) -> bool:
        """Hash the next held piece in order; False when there is none or the blob is unloaded. Raises LocalError."""
        with self._catch_lock:
            with self._lock:
                prefix = self._prefix
                piece, hasher = prefix.pieces, prefix.ahead(prefix.pieces)
                if hasher is None or self.descriptor < 0 or self.complete or not self.held >> piece & 1:
                    return False
                # A descriptor of its own, so that nobody has to keep the blob pinned for this.
                try:
                    descriptor = os.dup(self.descriptor)
                except OSError as error:
                    raise local_error(error, f"blob {self.digest.short}") from None
            try:
                if not hash_piece(descriptor, self.layout, piece, [hasher], buffer):
                    return False
            except OSError as error:
                raise local_error(error, f"blob {self.digest.short}") from None
            finally:
                os.close(descriptor)
            with self._lock:
                prefix.commit(piece, hasher)
            return True

    def _catch_up_fully(self) -> None:
        # Mostly nothing is left to do, and a buffer costs its pages: more than all else a tiny blob's check does.
        if self._prefix.pieces < self.layout.count:
            buffer = memoryview(bytearray(min(CHUNK_BYTES, self.layout.size_bytes)))
            while self.catch_up(buffer):
                pass

    def _is_content_right(self) -> bool:
        """Compare the digest. Pieces that rotted here meanwhile are dropped: the rest is not wrong for that."""
        try:
            self._catch_up_fully()
        except LocalError:
            if not self.check_pieces(self.layout.full_mask, "digest"):
                raise
            return False
        with self._lock:
            if self._prefix.pieces == self.layout.count and self._prefix.matches():
                return True
        self.check_pieces(self.layout.full_mask, "digest")
        return False

    def check_digest(self, on_match: Callable[[], None] | None = None) -> bool:
        with self._check_lock:
            if self.complete:
                return True
            generation = self._generation
            if self.held != self.layout.full_mask:
                raise LocalError(f"blob {self.digest.short} has pieces missing: its digest cannot be checked yet")
            if not self._is_content_right():
                return False
            with self._lock:
                self.matched = generation == self._generation
            if self.matched and on_match is not None:
                on_match()
            try:
                return self._settle_for_good(generation)
            except OSError as error:
                raise local_error(error, f"blob {self.digest.short}") from None

    def _settle_for_good(self, generation: int) -> bool:
        """Bytes and hashes first, the name after. False for a blob that was voided meanwhile."""
        self._files.sync()
        with self._lock:
            if generation != self._generation:
                return False
            status = self._files.become_complete()
            self.changed_ns, self.checked_ns = status.st_ctime_ns, status.st_mtime_ns
            self.checks.passed_all(self._host.clock())
            self.complete = True
        self._files.sync_names()
        return True

    def void(self) -> None:
        """See BlobHandle. Waits for no digest check that is running, which comes to nothing. Raises LocalError."""
        with self._lock:
            if self.complete:
                log.warning("store: blob %s matched its digest here and is not voided", self.digest.short)
                return
            self._generation += 1
            self.matched = False
            for owner in self._owners.values():
                owner.settle()
            self._owners.clear()
            self.held = 0
            self.checks.forget()
            self._prefix = PrefixDigest(self.digest)
            try:
                self._files.clear()
            except OSError as error:
                raise local_error(error, f"blob {self.digest.short}") from None

    # --- what rots ---------------------------------------------------------------------------------------------

    def check_mark(self, *, for_peer: bool) -> float:
        """See BlobHandle."""
        if self.complete:
            try:
                changed_ns = os.fstat(self.descriptor).st_ctime_ns
            except OSError:
                changed_ns = -1
            if changed_ns != self.changed_ns:
                self.changed_ns = changed_ns
                self.checks.forget()
        return self._host.clock() - self._host.verify_after_s(for_peer=for_peer)

    def check_pieces(self, pieces: int, found_by: str) -> int:
        """Read held pieces (mask) and compare them with their hashes: those dropped. Raises LocalError for the hashes.

        Pieces that cannot be read are dropped too: written again, a disk puts them elsewhere.
        """
        generation, at_s, forgotten = self._generation, self._host.clock(), self.checks.forgotten
        losses, pieces = len(self.losses), pieces & self.held
        if not pieces:
            return 0
        rotten = rotten_pieces(self, pieces)
        for piece in indices(pieces & ~rotten):
            self.checks.passed(piece, at_s, forgotten)
        if not rotten:
            return 0
        # The next digest check must not find them missing before that was reported.
        with self._check_lock:
            lost = self._lose(rotten, generation, losses)
            if lost:
                self._host.found_rotten(self, lost, found_by)
        return lost

    def read_checked(self, piece: int) -> memoryview | None:
        """See BlobHandle."""
        content = read_right(self, piece)
        if content is None:
            # Of a complete blob whose hashes are gone this learns them anew.
            self.check_pieces(1 << piece, "client")
        return content

    def note_checked(self) -> None:
        """Every piece was found right at `checked_ns`: tell the next start. Raises OSError.

        Not of a file that somebody else wrote to meanwhile: check_mark() is to see that.
        """
        with self._lock:
            if self.complete and self.descriptor >= 0 and os.fstat(self.descriptor).st_ctime_ns == self.changed_ns:
                os.utime(self.descriptor, ns=(self.checked_ns, self.checked_ns))
                self.changed_ns = os.fstat(self.descriptor).st_ctime_ns

    def lost_since(self, losses: int) -> int:
        """See BlobHandle."""
        return functools.reduce(operator.or_, self.losses[losses:], 0)

    def _lose(self, pieces: int, generation: int, losses: int) -> int:
        """HELD -> MISSING for these; what they are now (mask).

        But for what another check lost since there were so many losses: it is missing, or has been fetched again.
        """
        with self._lock:
            pieces &= self.held & ~self.lost_since(losses)
            if generation != self._generation or not pieces:
                return 0
            held = self.held & ~pieces
            try:
                if self.complete:
                    self._files.become_partial(held)
                else:
                    self._files.write_held(held)
            except OSError as error:
                # It is not served from now on all the same; the next start finds it again.
                log.error("%s", local_error(error, f"rotten pieces of blob {self.digest.short} not noted"))
            self.held = held
            self.losses.append(pieces)
            self.complete = self.matched = False
            self._prefix = PrefixDigest(self.digest)
            return pieces
