"""The scrub: a thread that reads what a store holds, piece by piece and slowly, so that rot is found before it is used.

A complete blob is due when so much time has passed since its last check, over restarts too. What somebody suspects
comes first, and so do the unfinished blobs that an earlier start of the machine left. What is rotten is dropped by the
store; fetching it again is the business of whoever listens there (BlobStore.on_rotten).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from peer.store.base import ALL_PIECES
from proto.errors import LocalError
from proto.pieces import indices

if TYPE_CHECKING:
    from peer.store.disk import DiskStore
    from proto.ids import Digest
    from proto.pieces import PieceLayout

log = logging.getLogger(__name__)

# How often it looks whether something is due.
_LOOK_S: Final = 60.0
# After trouble with the disk.
_REST_S: Final = 600.0


class Scrub:
    """Begins at once; close() ends it after the piece in hand, before the store is closed.

    `interval_s` is the time between two checks of a blob, 0 for none but what is suspected. `rate_bytes_s` holds for
    what is due, not for what is suspected.
    """

    def __init__(self, store: DiskStore, *, interval_s: float, rate_bytes_s: int) -> None:
        self._store = store
        self._interval_s = interval_s
        self._look_s = min(_LOOK_S, interval_s or _LOOK_S)
        self._rate_bytes_s = rate_bytes_s
        # Pieces (mask), and who found cause.
        self._suspects: OrderedDict[Digest, tuple[int, str]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        for digest in store.unverified():
            self._suspects[digest] = (ALL_PIECES, "scrub")
        store.read_again = self.suspect
        self._thread = threading.Thread(target=self._run, name="store-scrub", daemon=True)
        self._thread.start()

    def suspect(self, digest: Digest, pieces: int = ALL_PIECES) -> None:
        """Somebody complained of these pieces (mask): check them before all else."""
        with self._changed:
            doubted, _ = self._suspects.get(digest, (0, ""))
            self._suspects[digest] = (doubted | pieces, "complaint")
            self._suspects.move_to_end(digest, last=False)
            self._changed.notify()

    def close(self) -> None:
        """Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        rest_until = 0.0
        while not self._closed:
            with self._changed:
                suspect = self._suspects.popitem(last=False) if self._suspects else None
            try:
                if suspect is not None:
                    digest, (pieces, found_by) = suspect
                    self._check(digest, pieces, found_by, rate_bytes_s=0)
                elif time.monotonic() < rest_until or not self._check_due():
                    self._wait(self._look_s)
            except OSError as error:
                log.error("scrub_failed error=%s", error)
                rest_until = time.monotonic() + _REST_S
            except Exception:
                # Our own bug: logged with its trace, but pulls need no scrub.
                log.exception("scrub_failed")
                rest_until = time.monotonic() + _REST_S

    def _check_due(self) -> bool:
        """Check the blob that was checked the longest ago; False when none is due, with the wait done here."""
        oldest = self._store.oldest_check() if self._interval_s else None
        if oldest is None:
            return False
        digest, checked_s = oldest
        due_in_s = checked_s + self._interval_s - time.time()
        if due_in_s > 0:
            self._wait(min(due_in_s, self._look_s))
            return True
        self._check(digest, ALL_PIECES, "scrub", rate_bytes_s=self._rate_bytes_s)
        return True

    def _check(self, digest: Digest, pieces: int, found_by: str, *, rate_bytes_s: int) -> None:
        """Read these pieces (mask); what is suspected meanwhile goes before what is only due."""
        begun_ns, lost = time.time_ns(), 0
        layout = self._layout_of(digest)
        if layout is None:
            return
        try:
            for piece in indices(pieces & layout.full_mask):
                if self._closed or (rate_bytes_s and self._suspects):
                    return
                lost |= self._check_piece(digest, piece, found_by)
                self._store.counters.add_scrubbed(layout.length(piece))
                if rate_bytes_s:
                    self._wait(layout.length(piece) / rate_bytes_s)
        except LocalError as error:
            log.error("scrub_failed error=%s", error)
            self._store.note_checked(digest, begun_ns, right=False)
            return
        if pieces == ALL_PIECES and not lost:
            self._store.note_checked(digest, begun_ns)

    def _layout_of(self, digest: Digest) -> PieceLayout | None:
        handle = self._store.get(digest, used=False)
        if handle is None:
            return None
        # What somebody wrote before is read now; what is written from now on is not to be hidden by this check.
        handle.check_mark()
        handle.close()
        return handle.layout

    def _check_piece(self, digest: Digest, piece: int, found_by: str) -> int:
        """What was dropped (mask). Pinned for one piece at a time: a scrub keeps no blob from eviction."""
        handle = self._store.get(digest, used=False)
        if handle is None:
            return 0
        try:
            lost = handle.check_pieces(1 << piece, found_by)
            if not handle.in_use:
                # What nobody reads shall not push out of memory what is read.
                offset, length = handle.layout.offset(piece), handle.layout.length(piece)
                os.posix_fadvise(handle.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
            return lost
        finally:
            handle.close()

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._suspects), seconds)
