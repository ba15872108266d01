"""A blob as one member claims that it is, brought into a file aside and compared with its digest. Nothing of it counts.

A member that completed a blob by itself says what its piece hashes are. That helps to fetch the blob from it; only what
has passed the digest here goes into the store, hashed anew. Blocking; what is brought is forgotten with close().
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import tempfile
import time
from typing import TYPE_CHECKING, Final

import blake3

from peer.store.base import FileSlice
from peer.transport.base import PieceFetch
from proto.errors import LocalError, PieceCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.store.base import Chunk
    from peer.transport.base import FetchOutcome, Transport
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from supernode.control.swarm_registry import Claim

# The seed's transfers from peers have few threads: a claim leaves some to the others.
AT_A_TIME: Final = 2
# A piece at the slowest rate that is worth waiting for, while an origin could be asked.
PIECE_WAIT_S: Final = 10.0
RATE_MIN_BYTES_S: Final = 2 << 20
# Of all of it: who waits for the blob gets nothing meanwhile, and the member may be lying.
CLAIM_MAX_S: Final = 30.0
# Of the disk's free bytes, at most this part is used for a claim.
DISK_PART: Final = 0.5
_READ_BYTES: Final = 1 << 20
# How soon a cancelled fetch is noticed.
_LOOK_S: Final = 0.2
# Transfers that no lease stands behind; lease numbers are positive.
UNLEASED: Final[Iterator[int]] = itertools.count(-1, -1)


class ClaimedBlob:
    """Implements peer.transport.base.PieceTarget. Raises LocalError where there is no room."""

    def __init__(self, digest: Digest, layout: PieceLayout, claim: Claim, folder: Path) -> None:
        self.digest = digest
        self.layout = layout
        self._claim = claim
        disk = os.statvfs(folder)
        if layout.size_bytes > DISK_PART * disk.f_bavail * disk.f_frsize:
            raise LocalError(f"no room aside for {layout.size_bytes} bytes of blob {digest.short}")
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by close()

    def hash_of(self, piece: int) -> bytes:
        """As the member claims it."""
        return self._claim.hashes[32 * piece : 32 * (piece + 1)]

    def writer(self, piece: int, *, from_origin: bool = False) -> _Writer:
        """See PieceTarget."""
        del from_origin
        return _Writer(self._file.fileno(), self.layout.offset(piece), self.layout.length(piece), self.hash_of(piece))

    def slice_of(self, piece: int) -> FileSlice:
        """What was brought of a piece."""
        return FileSlice(self._file.fileno(), self.layout.offset(piece), self.layout.length(piece))

    def bring(self, transport: Transport, ticket: bytes, cancel: Cancellation) -> bool:
        """Fetch every piece from the member. False when it does not give one, or is too slow. Raises FetchCancelled."""
        began_s, brought_bytes = time.monotonic(), 0
        outcomes: queue.SimpleQueue[FetchOutcome] = queue.SimpleQueue()
        missing, under_way = iter(range(self.layout.count)), dict[int, int]()
        try:
            while True:
                for piece in itertools.islice(missing, AT_A_TIME - len(under_way)):
                    fetch_id = next(UNLEASED)
                    under_way[fetch_id] = piece
                    fetch = PieceFetch(fetch_id, self, piece, self._claim.source, ticket, PIECE_WAIT_S)
                    transport.start(fetch, outcomes.put)
                if not under_way:
                    return True
                cancel.check()
                with contextlib.suppress(queue.Empty):
                    outcome = outcomes.get(timeout=_LOOK_S)
                    brought_bytes += self.layout.length(under_way.pop(outcome.fetch_id))
                    if outcome.reason:
                        return False
                patience_s = min(CLAIM_MAX_S, PIECE_WAIT_S + brought_bytes / RATE_MIN_BYTES_S)
                if under_way and time.monotonic() - began_s > patience_s:
                    return False
        finally:
            for fetch_id in under_way:
                transport.cancel(fetch_id)
            for _ in under_way:
                outcomes.get()

    def matches(self, cancel: Cancellation) -> bool:
        """Whether all of it is what its digest says. Raises LocalError, FetchCancelled."""
        hasher = self.digest.hasher()
        try:
            for offset in range(0, self.layout.size_bytes, _READ_BYTES):
                cancel.check()
                hasher.update(os.pread(self._file.fileno(), _READ_BYTES, offset))
        except OSError as error:
            raise LocalError(f"blob {self.digest.short} cannot be read back: {error.strerror}") from None
        return hasher.hexdigest() == self.digest.hex

    def close(self) -> None:
        """Forget what was brought. Idempotent."""
        self._file.close()


class _Writer:
    """Implements peer.store.base.PieceWriter."""

    def __init__(self, descriptor: int, offset: int, length: int, piece_hash: bytes) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._expected = piece_hash
        self._hasher = blake3.blake3()
        self.remaining_bytes = length
        self.fresh = False

    def write(self, chunk: Chunk) -> None:
        assert isinstance(chunk, memoryview)
        try:
            while chunk:
                count = os.pwrite(self._descriptor, chunk, self._offset)
                self._hasher.update(chunk[:count])
                self._offset += count
                self.remaining_bytes -= count
                chunk = chunk[count:]
        except OSError as error:
            raise LocalError(f"a piece cannot be kept aside: {error.strerror}") from None

    def finish(self) -> bytes:
        found = self._hasher.digest()
        if self.remaining_bytes or found != self._expected:
            raise PieceCorrupt("a piece is not what its holder claims")
        self.fresh = True
        return found

    def abort(self) -> None:
        """Nothing to undo: the file goes as a whole."""
