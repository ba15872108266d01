"""DiskStore: which blobs are there, who uses them, and what must go when room is short.

Room is counted when a blob is begun, for the whole of it: a download that started does not fail half-way for the
size limit. The least recently used blob that nobody has pinned goes first. Bytes are the business of
peer.store.blob and peer.store.writer.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from peer.store import kept
from peer.store.base import StoredBlob
from peer.store.blob import Blob
from peer.store.blob_files import BlobMeta, MetaCorrupt, current_boot_id
from peer.store.counters import StoreCounters
from peer.store.digest import DigestThread
from peer.store.files import NO_ROOM, local_error
from peer.store.handle import DiskBlobHandle
from peer.store.paths import StoreRoot, unusable
from proto.errors import BlobInUse, ConfigError, LocalError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from proto.ids import Digest
    from proto.pieces import PieceLayout

log = logging.getLogger(__name__)

DAY_S: Final = 86_400.0
# Who waits for room looks again so often whether it goes on waiting.
LOOK_S: Final = 0.1

# Errors that are no sign of damaged files.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class DiskStore:
    """See peer.store.base.BlobStore. Call close() in the end.

    `size_limit_bytes` bounds the sum of the blobs' full sizes, `free_floor_bytes` is left free on the disk. What was
    not checked for `verify_after_s` is to be checked before a client is sent it. Raises ConfigError when the folder
    cannot be used.
    """

    def __init__(
        self,
        root: Path,
        *,
        size_limit_bytes: int,
        free_floor_bytes: int,
        verify_after_s: float = DAY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if size_limit_bytes <= 0 or free_floor_bytes < 0:
            raise ConfigError(f"store limits {size_limit_bytes}/{free_floor_bytes} bytes: must be positive")
        self.root = root
        self._root = StoreRoot(root)
        self._size_limit_bytes = size_limit_bytes
        self._free_floor_bytes = free_floor_bytes
        self._verify_after_s = verify_after_s
        self.clock = clock
        self.counters = StoreCounters()
        self._boot_id = current_boot_id()
        self._lock = threading.RLock()
        # A blob was closed by its last user, or is gone.
        self._room_came = threading.Condition(self._lock)
        # Least recently used first.
        self._blobs: OrderedDict[Digest, Blob] = OrderedDict()
        # Blobs that may still take room; those that became complete are left out when it is next counted.
        self._unfinished: dict[Blob, None] = {}
        self._used_bytes = 0
        self._last_use_ns = 0
        self._last_used: Blob | None = None
        self._callbacks: list[Callable[[Digest], None]] = []
        self._rotten_callbacks: list[Callable[[Digest, int], None]] = []
        self._before_write: list[Callable[[Digest], None]] = []
        self._close_idle: list[Callable[[], None]] = []
        # Reads again what is suspected: the scrub, while there is one.
        self.read_again: Callable[[Digest, int], None] = lambda digest, pieces: None
        self._digests = DigestThread()
        try:
            self._kept = kept.load(root)
            self._scan()
        except OSError as error:
            self._root.close()
            raise unusable(root, error) from None

    def close(self) -> None:
        """Stop the store's thread and let another process have the folder. Handles should be closed before."""
        self._digests.close()
        self._root.close()

    def inventory(self) -> list[StoredBlob]:
        with self._lock:
            blobs = list(self._blobs.values())
        return [StoredBlob(blob.digest, blob.layout, blob.held, blob.complete) for blob in blobs]

    def get(self, digest: Digest, *, used: bool = True) -> DiskBlobHandle | None:
        blob = self._acquire(digest)
        if blob is None:
            return None
        if used:
            self._touch(blob)
        return DiskBlobHandle(self, blob)

    def open(
        self, digest: Digest, layout: PieceLayout, *, waits_on: Callable[[], bool] = lambda: False
    ) -> DiskBlobHandle:
        self._drop_other_layout(digest, layout)
        blob = self._acquire(digest)
        if blob is None:
            blob = self._begin(digest, layout, waits_on)
        elif not blob.complete and blob.layout != layout:
            self.unpin(blob)
            raise BlobInUse(f"blob {digest.short} is in use with pieces of {blob.layout.piece_size_bytes} bytes")
        self._touch(blob)
        return DiskBlobHandle(self, blob)

    def remove(self, digest: Digest) -> bool:
        with self._lock:
            blob = self._blobs.get(digest)
            if blob is not None and blob.pins:
                self._let_go_of_idle()
            if blob is None or blob.pins or digest in self._kept:
                return False
            self._forget(blob)
        self._tell([digest])
        return True

    @property
    def kept(self) -> frozenset[Digest]:
        return self._kept

    def keep(self, digests: Iterable[Digest]) -> None:
        wanted = frozenset(digests)
        if wanted != self._kept:
            kept.save(self.root, wanted)
            self._kept = wanted

    def unused(self, since_unix_s: float) -> list[StoredBlob]:
        """What was not used since then and may be evicted, the longest unused first."""
        with self._lock:
            self._let_go_of_idle()
            found = [blob for blob in self._movable() if _last_use_s(blob) < since_unix_s]
        return [StoredBlob(blob.digest, blob.layout, blob.held, blob.complete) for blob in found]

    def suspect(self, digest: Digest, pieces: int) -> None:
        self.read_again(digest, pieces)

    @property
    def used_bytes(self) -> int:
        """The sum of the full sizes of all blobs, partial ones too."""
        return self._used_bytes

    def on_evicted(self, callback: Callable[[Digest], None]) -> None:
        self._callbacks.append(callback)

    def on_rotten(self, callback: Callable[[Digest, int], None]) -> None:
        self._rotten_callbacks.append(callback)

    def before_write(self, callback: Callable[[Digest], None]) -> None:
        self._before_write.append(callback)

    def on_want_of_room(self, close_idle: Callable[[], None]) -> None:
        self._close_idle.append(close_idle)

    # --- for the scrub -----------------------------------------------------------------------------------------

    def unverified(self) -> list[Digest]:
        """Unfinished blobs that an earlier start of the machine left: their last bytes may not be on the disk."""
        with self._lock:
            return [blob.digest for blob in self._unfinished if not blob.complete and blob.boot_id != self._boot_id]

    def oldest_check(self) -> tuple[Digest, float] | None:
        """The complete blob that was checked the longest ago, and when (unix seconds)."""
        with self._lock:
            complete = [blob for blob in self._blobs.values() if blob.complete]
        if not complete:
            return None
        oldest = min(complete, key=lambda blob: blob.checked_ns)
        return oldest.digest, oldest.checked_ns / 1e9

    def note_checked(self, digest: Digest, unix_ns: int, *, right: bool = True) -> None:
        """All of the blob was read then, and found right; or it cannot be said, and others come first."""
        blob = self._acquire(digest)
        if blob is None:
            return
        try:
            blob.checked_ns = unix_ns
            if right:
                blob.note_checked()
        except OSError as error:
            log.warning("store: check of blob %s not noted: %s", digest.short, error.strerror)
        finally:
            self.unpin(blob)

    # --- for blobs (peer.store.blob.BlobHost) ------------------------------------------------------------------

    def pin(self, blob: Blob) -> None:
        """Once more, for a writer."""
        with self._lock:
            blob.pins += 1

    def unpin(self, blob: Blob) -> None:
        """The last one closes the blob's files."""
        with self._lock:
            blob.pins -= 1
            if not blob.pins:
                self._room_came.notify_all()
                if blob.loaded:
                    blob.unload()

    def verify_after_s(self, *, for_peer: bool) -> float:
        # A peer checks each piece that it gets: for it this is only to give no cause for blame.
        return max(self._verify_after_s, DAY_S) if for_peer else self._verify_after_s

    def found_rotten(self, blob: Blob, pieces: int, found_by: str) -> None:
        """See BlobHost: count it, log it, and tell the listeners, which fetch it again."""
        with self._lock:
            if self._blobs.get(blob.digest) is blob:
                self._unfinished[blob] = None
        self.counters.add_rotten(found_by, pieces.bit_count())
        log.error(
            "pieces_rotten digest=%s pieces=%d found_by=%s: dropped, fetched again; look after the disk of the store",
            blob.digest.short, pieces.bit_count(), found_by,
        )  # fmt: skip
        for callback in self._rotten_callbacks:
            callback(blob.digest, pieces)

    def about_to_write(self, blob: Blob) -> None:
        for callback in self._before_write:
            callback(blob.digest)

    def want_room(self, blob: Blob, size_bytes: int) -> None:
        """Keep the disk's free floor. Raises StoreFull."""
        while self._free_bytes() < self._free_floor_bytes + size_bytes:
            if not self._evict_for(size_bytes):
                self.counters.add_full("floor")
                raise StoreFull(
                    f"blob {blob.digest.short}: the disk of the store is down to its floor of "
                    f"{self._free_floor_bytes} free bytes; free some"
                )

    def make_room(self, size_bytes: int) -> bool:
        """The disk took no more: evict. False when nothing could be."""
        if self._evict_for(size_bytes):
            return True
        self.counters.add_full("disk")
        return False

    def _evict_for(self, size_bytes: int) -> bool:
        """Evict until as many bytes were freed; False when nothing could be."""
        evicted: list[Digest] = []
        with self._lock:
            freed = 0
            if not self._movable():
                self._let_go_of_idle()
            for blob in self._movable():
                if freed >= size_bytes:
                    break
                freed += blob.layout.bytes_in(blob.held)
                evicted.append(blob.digest)
                self._forget(blob)
        self._tell(evicted)
        return freed > 0

    def request_digest(self, blob: Blob) -> None:
        self._digests.request(blob.catch_up)

    # --- the index ---------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        found: list[tuple[int, Blob]] = []
        for digest in self._root.digests():
            paths = self._root.of(digest)
            try:
                blob = Blob(self, digest, BlobMeta.read(paths.meta), paths)
                blob.scan()
                found.append((blob.paths.last_use_ns(), blob))
            except MetaCorrupt as error:
                log.warning("store: dropping blob %s: %s", digest.short, error)
                paths.unlink_all()
        for _, blob in sorted(found, key=lambda each: (each[0], each[1].digest)):
            self._blobs[blob.digest] = blob
            self._unfinished[blob] = None
            self._used_bytes += blob.layout.size_bytes
            self._last_use_ns = max(self._last_use_ns, blob.paths.last_use_ns())
        self._root.remove_orphans(set(self._blobs))

    def _acquire(self, digest: Digest) -> Blob | None:
        """Pin and load what is there. A blob whose files fail is dropped; nothing else suffers.

        Where this process has run out of descriptors or memory the blob stays, and cannot be opened now.
        """
        with self._lock:
            blob = self._blobs.get(digest)
            if blob is None:
                return None
            blob.pins += 1
        try:
            self._load(blob)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                log.error("store: blob %s not opened: %s", digest.short, error.strerror)
                self.unpin(blob)
                return None
            log.warning("store: dropping blob %s: %s", digest.short, error.strerror)
            with self._lock:
                blob.pins -= 1
                gone = not blob.pins and self._blobs.get(digest) is blob
                if gone:
                    self._forget(blob)
            if gone:
                self._tell([digest])
            return None
        return blob

    def _load(self, blob: Blob) -> None:
        with blob.load_lock:
            if not blob.loaded:
                blob.load()

    def _begin(self, digest: Digest, layout: PieceLayout, waits_on: Callable[[], bool]) -> Blob:
        evicted: list[Digest] = []
        try:
            with self._lock:
                while digest not in self._blobs and self._room_is_to_come(layout.size_bytes) and waits_on():
                    self._room_came.wait(LOOK_S)
                blob = self._blobs.get(digest)
                if blob is None:
                    self._reserve(digest, layout.size_bytes, evicted)
                    blob = Blob(self, digest, BlobMeta(layout, self._boot_id), self._root.of(digest))
                    blob.create()
                    self._blobs[digest] = blob
                    self._unfinished[blob] = None
                    self._used_bytes += layout.size_bytes
                blob.pins += 1
        except OSError as error:
            with contextlib.suppress(OSError):
                self._root.of(digest).unlink_all()
            if error.errno in NO_ROOM:
                self.counters.add_full("disk")
            raise local_error(error, f"blob {digest.short}") from None
        finally:
            self._tell(evicted)
        try:
            self._load(blob)
        except OSError as error:
            self.unpin(blob)
            raise local_error(error, f"blob {digest.short}") from None
        if blob.layout != layout and not blob.complete:
            self.unpin(blob)
            raise LocalError(f"blob {digest.short} was begun with two layouts at once: try again")
        return blob

    def _drop_other_layout(self, digest: Digest, layout: PieceLayout) -> None:
        """A partial blob that is cut otherwise goes, unless somebody uses it. Several may want it cut anew at once."""
        with self._lock:
            blob = self._blobs.get(digest)
            if blob is not None and not (blob.complete or blob.pins) and blob.layout != layout:
                self._forget(blob)

    def _reserve(self, digest: Digest, size_bytes: int, evicted: list[Digest]) -> None:
        """Evict until the blob fits; nothing is evicted when that would not be enough. Raises StoreFull."""
        free = self._free_bytes() - self._promised_bytes()
        if self._fits(size_bytes, free):
            return
        movable = self._movable()
        if self._lacks(movable, size_bytes, free):
            self._let_go_of_idle()
            movable = self._movable()
        lack = self._lacks(movable, size_bytes, free)
        if lack:
            self.counters.add_full(lack)
            where = (
                f"into the store of {self._size_limit_bytes} bytes beside what is in use or kept; raise its size limit"
                if lack == "limit"
                else f"above the disk's floor of {self._free_floor_bytes} free bytes; free some"
            )
            raise StoreFull(f"blob {digest.short} of {size_bytes} bytes does not fit {where}")
        for blob in movable:
            if self._fits(size_bytes, free):
                return
            # Bytes held are freed, bytes still to come are promised no more.
            free += blob.layout.size_bytes
            evicted.append(blob.digest)
            self._forget(blob)

    def _movable(self) -> list[Blob]:
        """Under the lock: what may be evicted, least recently used first."""
        return [blob for blob in self._blobs.values() if not blob.pins and blob.digest not in self._kept]

    def _room_is_to_come(self, size_bytes: int) -> bool:
        """Whether a blob of this size fits only once others are closed of which nothing more has to come."""
        free = self._free_bytes() - self._promised_bytes()
        if self._fits(size_bytes, free) or not self._lacks(self._movable(), size_bytes, free):
            return False
        self._let_go_of_idle()
        movable = self._movable()
        in_use = [blob for blob in self._blobs.values() if blob.pins and blob.digest not in self._kept]
        whole = [blob for blob in in_use if blob.held == blob.layout.full_mask]
        return bool(self._lacks(movable, size_bytes, free)) and not self._lacks(movable + whole, size_bytes, free)

    def _fits(self, size_bytes: int, free_bytes: int) -> bool:
        """Whether a new blob needs nobody's room, as nearly always: a full store has thousands to look through."""
        within_limit = self._used_bytes + size_bytes <= self._size_limit_bytes
        return within_limit and free_bytes >= self._free_floor_bytes + size_bytes

    def _lacks(self, movable: list[Blob], size_bytes: int, free_bytes: int) -> str:
        """Which bound a new blob of this size breaks even once these are evicted; empty if it fits."""
        movable_bytes = sum(blob.layout.size_bytes for blob in movable)
        if self._used_bytes - movable_bytes + size_bytes > self._size_limit_bytes:
            return "limit"
        return "floor" if free_bytes + movable_bytes < self._free_floor_bytes + size_bytes else ""

    def _let_go_of_idle(self) -> None:
        """Under the lock: what is kept open for nobody shall be in no one's way."""
        for close_idle in self._close_idle:
            close_idle()

    def _promised_bytes(self) -> int:
        """What the unfinished blobs will still take from the disk."""
        for blob in [blob for blob in self._unfinished if blob.complete]:
            del self._unfinished[blob]
        return sum(blob.layout.size_bytes - blob.layout.bytes_in(blob.held) for blob in self._unfinished)

    def _free_bytes(self) -> int:
        status = os.statvfs(self._root.root)
        return status.f_bavail * status.f_frsize

    def _touch(self, blob: Blob) -> None:
        with self._lock:
            if blob is self._last_used:
                # Nothing else was used since: the order stays. A piece that is sent costs no write to the disk.
                return
            self._last_used = blob
            if blob.digest in self._blobs:
                self._blobs.move_to_end(blob.digest)
            # The kernel's own stamps are a few milliseconds coarse: two uses would look like one.
            self._last_use_ns = max(self._last_use_ns + 1, time.time_ns())
            now_ns = self._last_use_ns
        try:
            blob.paths.touch(now_ns)
        except OSError as error:
            log.warning("store: last use of blob %s not noted: %s", blob.digest.short, error.strerror)

    def _forget(self, blob: Blob) -> None:
        """Under the lock, for a blob that nobody has pinned."""
        if blob is self._last_used:
            self._last_used = None
        del self._blobs[blob.digest]
        self._unfinished.pop(blob, None)
        self._used_bytes -= blob.layout.size_bytes
        self._room_came.notify_all()
        try:
            blob.paths.unlink_all()
        except OSError as error:
            log.warning("store: blob %s not deleted: %s", blob.digest.short, error.strerror)

    def _tell(self, evicted: list[Digest]) -> None:
        for digest in evicted:
            log.info("store: blob %s evicted", digest.short)
            for callback in self._callbacks:
                callback(digest)


def _last_use_s(blob: Blob) -> float:
    """Unix seconds; now for one whose files are going."""
    try:
        return blob.paths.last_use_ns() / 1e9
    except OSError:
        return float("inf")
