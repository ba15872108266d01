"""Pieces that members have and nobody vouches for, brought into a file aside until the whole blob matches its digest.

Nothing of it counts before: only what has passed the digest here goes into the store, hashed anew. Blocking; what is
brought is forgotten with close().
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import tempfile
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import blake3

from peer.store.base import FileSlice
from peer.transport.base import PieceFetch
from proto.errors import LocalError, PieceCorrupt
from proto.pieces import mask_of, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from peer.store.base import BlobHandle, Chunk
    from peer.transport.base import FetchOutcome, Transport
    from peer.transport.cancellation import Cancellation
    from proto.ids import PeerId
    from supernode.control.claims import Offer

logger = logging.getLogger(__name__)

# The seed's transfers from peers have few threads: these leave some to the others.
AT_A_TIME: Final = 2
# A piece at the slowest rate that is worth waiting for, while an origin could be asked.
PIECE_WAIT_S: Final = 10.0
RATE_MIN_BYTES_S: Final = 256 << 10
# Of all of it: who waits for the blob gets nothing of it meanwhile, and the members may be lying.
GATHER_MAX_S: Final = 30.0
# Transfers in a row that a member fails before it is asked no more.
FAILURES_MAX: Final = 2
# Of the disk's free bytes, at most this part is used.
DISK_PART: Final = 0.5
_READ_BYTES: Final = 1 << 20
# How soon a cancelled fetch is noticed.
_LOOK_S: Final = 0.2
# One after the other looks how much room there is, and takes it.
_RESERVING: Final = threading.Lock()
# Transfers that no lease stands behind; lease numbers are positive.
UNLEASED: Final[Iterator[int]] = itertools.count(-1, -1)


class GatheredBlob:
    """Implements peer.transport.base.PieceTarget beside the store's `blob`. Raises LocalError where there is no room.

    `offers`: by piece who says that it holds it. `given`: who gave a piece, and its hash. `refused`: who did not.
    """

    def __init__(self, blob: BlobHandle, offers: Mapping[int, tuple[Offer, ...]], folder: Path) -> None:
        self.digest = blob.digest
        self.layout = blob.layout
        self._blob = blob
        self._offers = offers
        self.given: dict[int, tuple[PeerId, bytes]] = {}
        self.refused: set[PeerId] = set()
        self._hashes: dict[int, bytes] = {}
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by close()
        try:
            self._reserve()
        except BaseException:
            self._file.close()
            raise

    def _reserve(self) -> None:
        """Take the room at once: others that look for theirs meanwhile must not count on it."""
        descriptor, layout = self._file.fileno(), self.layout
        size_bytes = sum(layout.length(piece) for piece in self._offers)
        with _RESERVING:
            disk = os.fstatvfs(descriptor)
            if size_bytes > DISK_PART * disk.f_bavail * disk.f_frsize:
                raise LocalError(f"no room aside for {size_bytes} bytes of blob {self.digest.short}")
            try:
                for first, last in runs(mask_of(self._offers)):
                    end = layout.offset(last) + layout.length(last)
                    os.posix_fallocate(descriptor, layout.offset(first), end - layout.offset(first))
            except OSError as error:
                raise LocalError(f"no room aside for blob {self.digest.short}: {error.strerror}") from None

    def hash_of(self, piece: int) -> bytes | None:
        """Of what came from peers before it is known; else nobody's word counts."""
        return self._blob.hash_of(piece)

    def writer(self, piece: int, *, from_origin: bool = False, claim: bytes = b"") -> _Writer:
        """See PieceTarget."""
        del from_origin
        return _Writer(self, self._file.fileno(), piece, claim)

    def came(self, piece: int, piece_hash: bytes) -> None:
        """All of a piece is in the file."""
        self._hashes[piece] = piece_hash

    def slice_of(self, piece: int) -> FileSlice:
        """What was brought of a piece."""
        return FileSlice(self._file.fileno(), self.layout.offset(piece), self.layout.length(piece))

    def bring(self, transport: Transport, ticket: bytes, cancel: Cancellation) -> None:
        """Fetch what members give, a piece from the next where one does not. Raises FetchCancelled.

        Ends without the rest when that is slow; `given` tells what came.
        """
        began_s, brought_bytes = time.monotonic(), 0
        outcomes: queue.SimpleQueue[FetchOutcome] = queue.SimpleQueue()
        waiting = [(piece, offer) for piece, offers in sorted(self._offers.items()) for offer in offers]
        waiting.reverse()
        under_way: dict[int, tuple[int, Offer]] = {}
        failures: Counter[PeerId] = Counter()
        try:
            while time.monotonic() - began_s < min(GATHER_MAX_S, PIECE_WAIT_S + brought_bytes / RATE_MIN_BYTES_S):
                while waiting and len(under_way) < AT_A_TIME:
                    piece, offer = waiting.pop()
                    busy = piece in self.given or any(piece == other for other, _ in under_way.values())
                    if busy or offer.peer in self.refused:
                        continue
                    fetch_id = next(UNLEASED)
                    under_way[fetch_id] = (piece, offer)
                    wanted = PieceFetch(
                        fetch_id, self, piece, offer.source, ticket, PIECE_WAIT_S, unproven=True, claim=offer.claim
                    )
                    transport.start(wanted, outcomes.put)
                if not under_way:
                    return
                cancel.check()
                with contextlib.suppress(queue.Empty):
                    outcome = outcomes.get(timeout=_LOOK_S)
                    piece, offer = under_way.pop(outcome.fetch_id)
                    if outcome.reason:
                        logger.info("offer_not_given piece=%d reason=%s", piece, outcome.reason)
                        failures[offer.peer] += 1
                        if failures[offer.peer] >= FAILURES_MAX:
                            self.refused.add(offer.peer)
                        waiting += [(piece, other) for other in reversed(self._offers[piece])]
                    else:
                        failures[offer.peer] = 0
                        self.given[piece] = (offer.peer, self._hashes[piece])
                        brought_bytes += self.layout.length(piece)
        finally:
            for fetch_id in under_way:
                transport.cancel(fetch_id)
            for _ in under_way:
                outcomes.get()

    def matches(self, cancel: Cancellation) -> bool:
        """Whether these pieces and those in the store are what the digest says. Raises LocalError, FetchCancelled."""
        hasher = self.digest.hasher()
        try:
            for piece in range(self.layout.count):
                descriptor = self._file.fileno() if piece in self.given else self._blob.fileno()
                offset, end = self.layout.offset(piece), self.layout.offset(piece) + self.layout.length(piece)
                for start in range(offset, end, _READ_BYTES):
                    cancel.check()
                    hasher.update(os.pread(descriptor, min(_READ_BYTES, end - start), start))
        except OSError as error:
            raise LocalError(f"blob {self.digest.short} cannot be read back: {error.strerror}") from None
        return hasher.hexdigest() == self.digest.hex

    def close(self) -> None:
        """Forget what was brought. Idempotent."""
        self._file.close()


class _Writer:
    """Implements peer.store.base.PieceWriter."""

    def __init__(self, gathered: GatheredBlob, descriptor: int, piece: int, claim: bytes) -> None:
        self._gathered = gathered
        self._claim = claim
        self._piece = piece
        self._descriptor = descriptor
        self._offset = gathered.layout.offset(piece)
        self._hasher = blake3.blake3()
        self.remaining_bytes = gathered.layout.length(piece)
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
        known = self._gathered.hash_of(self._piece) or self._claim
        if self.remaining_bytes or (known and known != found):
            raise PieceCorrupt("a piece is not what it is known to be")
        self._gathered.came(self._piece, found)
        self.fresh = True
        return found

    def abort(self) -> None:
        """Nothing to undo: the file goes as a whole."""
