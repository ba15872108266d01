"""One piece on its way into the file: hashed and written chunk by chunk, held only once its hash has passed.

Of several writers of one piece the first writes in place. Another writes aside, into an unnamed file, so that it
can never disturb bytes that were verified; if it is verified first, its bytes are copied into place. A writer
whose piece is held already only hashes, to tell its caller what the source was worth.
"""

from __future__ import annotations

import os
import tempfile
import threading
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import blake3

from peer.store.base import FileSlice
from peer.store.files import CHUNK_BYTES, NO_ROOM, local_error, read_into, write_all
from proto.errors import PieceCorrupt

if TYPE_CHECKING:
    from hashlib import _Hash
    from pathlib import Path

    from peer.store.base import Chunk
    from peer.store.digest import PrefixDigest
    from proto.ids import Digest
    from proto.pieces import PieceLayout


class Place(Enum):
    """Where a writer's bytes go."""

    HERE = "here"
    ASIDE = "aside"
    NOWHERE = "nowhere"


class WriterHost(Protocol):
    """The blob, as its writers see it."""

    digest: Digest
    layout: PieceLayout

    @property
    def descriptor(self) -> int: ...

    @property
    def aside_folder(self) -> Path: ...

    def make_room(self, size_bytes: int) -> bool:
        """Evict something; False when nothing may be."""
        ...

    def expected_hash(self, piece: int) -> bytes | None: ...

    def digest_ahead(self, prefix: PrefixDigest, piece: int) -> _Hash | None:
        """The digest of all before this piece, to go on with; None where the piece is not next in order."""
        ...

    def commit(self, writer: Writer, piece_hash: bytes) -> bool:
        """Mark the verified piece held; False when it was."""
        ...

    def leave(self, writer: Writer) -> None:
        """The writer is at its end, whichever."""
        ...


class Writer:
    """See peer.store.base.PieceWriter. Used by one thread; settle() alone is called from others."""

    def __init__(
        self,
        blob: WriterHost,
        piece: int,
        generation: int,
        place: Place,
        prefix: PrefixDigest | None,
        claim: bytes = b"",
    ) -> None:
        self.piece = piece
        self.generation = generation
        self.fresh = False
        self._blob = blob
        self._claim = claim
        self._place = place
        self._offset = blob.layout.offset(piece)
        self._length = blob.layout.length(piece)
        self._written = 0
        self._piece_hash = blake3.blake3()
        # The blob's digest with this piece's bytes, when the piece is next in order as its first bytes come.
        self._prefix = prefix
        self._hasher: _Hash | None = None
        self._aside: int | None = None
        self._turn = threading.Lock()
        self._ended = False

    @property
    def remaining_bytes(self) -> int:
        return self._length - self._written

    def write(self, chunk: Chunk) -> None:
        assert not self._ended
        assert len(chunk) <= self.remaining_bytes
        if isinstance(chunk, FileSlice):
            self._write_slice(chunk)
            return
        for start in range(0, len(chunk), CHUNK_BYTES):
            part = chunk[start : start + CHUNK_BYTES]
            self._hash(part)
            self._put(part)
            self._written += len(part)

    def _hash(self, part: memoryview) -> None:
        if not self._written and self._prefix is not None:
            # A small piece comes at once, when it is whole: the one before it may be held by now.
            self._hasher = self._blob.digest_ahead(self._prefix, self.piece)
        self._piece_hash.update(part)
        if self._hasher is not None:
            self._hasher.update(part)

    def _write_slice(self, chunk: FileSlice) -> None:
        """Copied by the kernel where it can, and hashed from the copy, so that what was checked is what is kept.

        Not linked: whoever writes to a linked file changes a blob whose digest has passed.
        """
        buffer = memoryview(bytearray(min(len(chunk), CHUNK_BYTES)))
        try:
            for start in range(0, len(chunk), CHUNK_BYTES):
                part = chunk[start : start + CHUNK_BYTES]
                view = buffer[: len(part)]
                if self._copied(part) and read_into(self._blob.descriptor, view, self._offset + self._written):
                    self._hash(view)
                    self._written += len(view)
                elif read_into(part.descriptor, view, part.offset):
                    self.write(view)
                else:
                    raise PieceCorrupt(f"{self._name}: the file that it comes from has become shorter")
        except OSError as error:
            raise local_error(error, self._name) from None

    def _copied(self, part: FileSlice) -> bool:
        """copy_file_range(2): within one filesystem, which may share the blocks. False for any trouble with it."""
        with self._turn:
            if self._place is not Place.HERE:
                return False
            to = self._offset + self._written
            try:
                count = os.copy_file_range(part.descriptor, self._blob.descriptor, len(part), part.offset, to)
            except OSError:
                return False
            return count == len(part)

    def finish(self) -> bytes:
        assert not self._ended
        try:
            if self.remaining_bytes:
                raise PieceCorrupt(f"{self._name} ended {self.remaining_bytes} bytes short")
            piece_hash = self._piece_hash.digest()
            expected = self._blob.expected_hash(self.piece) or self._claim
            if expected and expected != piece_hash:
                raise PieceCorrupt(f"{self._name} does not match its hash")
            self.fresh = self._blob.commit(self, piece_hash)
        finally:
            self.abort()
        return piece_hash

    def commit_digest(self) -> None:
        """The piece is held: the digest that it was begun with has its bytes. Under the blob's lock."""
        if self._prefix is not None and self._hasher is not None:
            self._prefix.commit(self.piece, self._hasher)

    def take_what_is_there(self) -> None:
        """In place of write() and finish(): the bytes are in the file already. Raises PieceCorrupt, LocalError."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self._length)))
        try:
            while remaining := self.remaining_bytes:
                part = buffer[: min(remaining, len(buffer))]
                if not read_into(self._blob.descriptor, part, self._offset + self._written):
                    break
                self.write(part)
            self.finish()
        except OSError as error:
            raise local_error(error, self._name) from None
        finally:
            self.abort()

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._aside is not None:
            os.close(self._aside)
        self._blob.leave(self)

    def settle(self) -> None:
        """From now on nothing is written in place: another writer was verified first, or the blob is voided."""
        with self._turn:
            self._place = Place.NOWHERE

    def copy_into_place(self) -> None:
        """Bring verified bytes from aside to where they belong. Raises LocalError. Evicts nothing: locks are held."""
        if self._aside is None:
            return
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            for start in range(0, self._length, CHUNK_BYTES):
                part = buffer[: min(CHUNK_BYTES, self._length - start)]
                read_into(self._aside, part, start)
                write_all(self._blob.descriptor, part, self._offset + start)
        except OSError as error:
            raise local_error(error, self._name) from None

    @property
    def _name(self) -> str:
        return f"piece {self.piece} of blob {self._blob.digest.short}"

    def _put(self, part: memoryview) -> None:
        while True:
            try:
                self._put_once(part)
                return
            except OSError as error:
                if error.errno not in NO_ROOM or not self._blob.make_room(len(part)):
                    raise local_error(error, self._name) from None

    def _put_once(self, part: memoryview) -> None:
        """The lock is not held while room is made."""
        if self._place is Place.ASIDE:
            write_all(self._aside_file(), part, self._written)
            return
        with self._turn:
            if self._place is Place.HERE:
                write_all(self._blob.descriptor, part, self._offset + self._written)

    def _aside_file(self) -> int:
        if self._aside is None:
            self._aside, name = tempfile.mkstemp(dir=self._blob.aside_folder)
            os.unlink(name)
        return self._aside
