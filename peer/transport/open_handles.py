"""Complete blobs that pieces are sent of, kept open from one request to the next.

To open a blob's files and to read its hashes costs more than to send a piece. They are kept for a moment only, and not
when the store wants room: what is open it cannot let go. One that is not complete the node itself has open, or may want
cut anew. It decides nothing about what is sent.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peer.store.base import BlobHandle, BlobStore
    from proto.ids import Digest

# Another piece of the same blob is asked for sooner, on any link that has more than one to send.
KEPT_S: Final = 0.5


class OpenHandles:
    """Safe to use from any thread. A handle belongs to whoever took it until it is given back."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        # With when it was given back.
        self._idle: dict[Digest, tuple[BlobHandle, float]] = {}
        self._closed = False
        store.on_want_of_room(self._close_all_idle)

    def take(self, digest: Digest) -> BlobHandle | None:
        """Open, or None where the store has nothing of the blob. Raises LocalError."""
        with self._lock:
            idle = self._idle.pop(digest, None)
        return idle[0] if idle is not None else self._store.get(digest)

    def give(self, handle: BlobHandle) -> None:
        """Back from its user: kept open where it is complete, or closed."""
        with self._lock:
            if handle.complete and not self._closed and handle.digest not in self._idle:
                self._idle[handle.digest] = handle, time.monotonic()
                return
        handle.close()

    def close_idle(self, now_s: float) -> None:
        """Those that nobody took for KEPT_S. Monotonic seconds."""
        with self._lock:
            over = [handle for handle, since_s in self._idle.values() if now_s - since_s >= KEPT_S]
            for handle in over:
                del self._idle[handle.digest]
        for handle in over:
            handle.close()

    def _close_all_idle(self) -> None:
        self.close_idle(float("inf"))

    def close(self) -> None:
        """All that are idle, and from now on all that come back."""
        with self._lock:
            self._closed = True
        self._close_all_idle()
