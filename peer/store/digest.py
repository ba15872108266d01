"""The digest of a blob, advanced along its contiguous verified prefix while the rest is still arriving.

A writer whose piece is next in order hashes its bytes in passing, on a copy that counts only once the piece is
held. Pieces that came out of order are read back by one thread of the store (DigestThread), or by check_digest.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from peer.store.files import CHUNK_BYTES, read_into
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from hashlib import _Hash

    import blake3

    from proto.ids import Digest
    from proto.pieces import PieceLayout

    # Hashes the next held piece of a blob; False when there is none, or nobody uses the blob. Raises LocalError.
    CatchUp = Callable[[memoryview], bool]


class PrefixDigest:
    """How far the digest is. The blob's lock guards it; a copy may be advanced without the lock.

    To begin at the first byte again another one is made: what was hashed for this one then comes to nothing.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self.pieces = 0
        self._hasher = digest.hasher()

    def ahead(self, piece: int) -> _Hash | None:
        """A copy to put this piece's bytes into, when it is next in order."""
        return self._hasher.copy() if piece == self.pieces else None

    def commit(self, piece: int, hasher: _Hash) -> None:
        """The piece is held and `hasher` has taken all of it. Nothing, when another way was faster."""
        if piece == self.pieces:
            self._hasher = hasher
            self.pieces += 1

    def matches(self) -> bool:
        """Whether what was hashed so far is the blob."""
        return self._hasher.hexdigest() == self._digest.hex


def hash_piece(
    descriptor: int, layout: PieceLayout, piece: int, hashers: Sequence[_Hash | blake3.blake3], buffer: memoryview
) -> bool:
    """Put a piece's bytes into each hasher; False when the file is shorter. Raises OSError."""
    offset = layout.offset(piece)
    end = offset + layout.length(piece)
    while offset < end:
        part = buffer[: min(len(buffer), end - offset)]
        if not read_into(descriptor, part, offset):
            return False
        for hasher in hashers:
            hasher.update(part)
        offset += len(part)
    return True


class DigestThread:
    """Brings the digests of blobs up to their verified prefix, a piece at a time."""

    def __init__(self) -> None:
        self._waiting: deque[CatchUp] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def request(self, catch_up: CatchUp) -> None:
        """A blob has a piece to hash, by this method of its own."""
        with self._changed:
            if self._closed or catch_up in self._waiting:
                return
            self._waiting.append(catch_up)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-digest", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop after the piece in hand."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                catch_up = self._waiting.popleft()
            # Disk trouble comes up again, and is reported, where the caller asks for the digest.
            with contextlib.suppress(LocalError):
                while not self._closed and catch_up(buffer):
                    pass
