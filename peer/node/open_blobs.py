"""Blobs in use on this node: opened, closed and voided in the store as the downloader says, with the hashes kept.

Lives on the event loop; the store's slow calls are the workers'. It decides nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peer.downloader.contract import Event, HashesConflict, PieceArrived, StoreOpened, StoreRefused
from proto.errors import LocalError, PieceCorrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import OpenInStore
    from peer.node.workers import Workers
    from peer.store.base import BlobHandle, SignedHashes
    from peer.transport.delivery import DeliverySlot
    from proto.ids import Digest
    from proto.pieces import PieceLayout

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class LiveBlob:
    """What the shell keeps of a blob the downloader knows; `handle` is there while it is open in the store."""

    digest: Digest
    handle: BlobHandle | None = None
    layout: PieceLayout | None = None
    ticket: bytes = b""
    # Pieces (mask) of which no client is given anything before the digest has passed.
    withheld: int = 0
    # Checked signed hashes that wait for the store to be open.
    early_hashes: list[SignedHashes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Readers look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


@dataclass(slots=True, eq=False)
class OpenBlobs:
    """By digest. `_post` queues an event for the downloader; `_call_threadsafe` has the event loop call something."""

    _workers: Workers
    _delivery: DeliverySlot
    _post: Callable[[Event], None]
    _call_threadsafe: Callable[..., bool]
    _blobs: dict[Digest, LiveBlob] = field(default_factory=dict)
    _closed: bool = False

    def of(self, digest: Digest) -> LiveBlob:
        """The blob; made when it is new."""
        found = self._blobs.get(digest)
        if found is None:
            found = self._blobs[digest] = LiveBlob(digest)
        return found

    def handle(self, digest: Digest) -> BlobHandle:
        """Of a blob that is open, which it must be."""
        handle = self._blobs[digest].handle
        assert handle is not None, "the downloader works on open blobs alone"
        return handle

    def waker(self, digest: Digest) -> Callable[[], None]:
        """Has the blob's readers look again, from any thread."""

        def wake() -> None:
            self._call_threadsafe(self._wake, digest)

        return wake

    def _wake(self, digest: Digest) -> None:
        blob = self._blobs.get(digest)
        if blob is not None:
            blob.wake()

    def pieces_rotten(self, digest: Digest) -> None:
        """From any thread: pieces of it are missing again, and readers look again. A delivery begins anew with it."""
        self._delivery.current.blob_left(digest)
        self._call_threadsafe(self._rejoin, digest)

    def _rejoin(self, digest: Digest) -> None:
        blob = self._blobs.get(digest)
        if blob is not None:
            blob.wake()
            if blob.handle is not None:
                self._delivery.current.blob_opened(digest)

    def forget(self, digest: Digest) -> None:
        """Nothing of it is held, wanted or read any more."""
        self._blobs.pop(digest, None)

    def tell_delivery(self) -> None:
        """A delivery that was just selected hears of the blobs that are open."""
        for blob in self._blobs.values():
            if blob.handle is not None:
                self._delivery.current.blob_opened(blob.digest)

    # --- the store ---------------------------------------------------------------------------------------------

    def open(self, command: OpenInStore) -> None:
        """Pin it; StoreOpened or StoreRefused is posted."""
        self._workers.open(command, self._opened_threadsafe)

    def _opened_threadsafe(self, digest: Digest, layout: PieceLayout, opened: BlobHandle | str) -> None:
        """From the store's thread: a handle, or what is wrong."""
        if not self._call_threadsafe(self._opened, digest, layout, opened) and not isinstance(opened, str):
            opened.close()

    def _opened(self, digest: Digest, layout: PieceLayout, opened: BlobHandle | str) -> None:
        if isinstance(opened, str):
            self._refused(digest, opened)
            return
        if self._closed or opened.layout != layout:
            opened.close()
            self._post(StoreRefused(digest, "the blob is stored in other pieces than the swarm's"))
            return
        try:
            hashed = functools.reduce(operator.or_, (signed.pieces for signed in opened.signed_hashes), 0)
        except LocalError as error:
            opened.close()
            self._refused(digest, str(error))
            return
        blob = self.of(digest)
        blob.handle, blob.layout = opened, opened.layout
        # Before the hashes that waited: a conflict with them voids an open blob alone.
        self._post(StoreOpened(digest, opened.held, hashed, opened.complete))
        early, blob.early_hashes = blob.early_hashes, []
        for signed in early:
            self.learn_hashes(digest, signed)
        self._delivery.current.blob_opened(digest)

    def _refused(self, digest: Digest, message: str) -> None:
        logger.error("store_refused digest=%s %s", digest.short, message)
        self._post(StoreRefused(digest, message))

    def close(self, digest: Digest) -> None:
        """Unpin it."""
        blob = self.of(digest)
        handle, blob.handle = blob.handle, None
        if handle is not None:
            if not (handle.complete or handle.matched):
                self._delivery.current.blob_left(digest)
            handle.close()

    def void(self, digest: Digest) -> None:
        """Drop every piece and hash of it."""
        self.of(digest).early_hashes.clear()
        self._delivery.current.blob_voided(digest)
        try:
            self.handle(digest).void()
        except LocalError as error:
            logger.error("blob_not_voided digest=%s %s", digest.short, error)

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        """Give checked hashes to the store, now or when the blob is open; False when they are of no use."""
        blob = self.of(digest)
        if blob.handle is None:
            if blob.layout is None:
                blob.early_hashes.append(signed)
            else:  # it was open, and rests
                self._workers.keep_hashes(digest, signed)
            return True
        try:
            blob.handle.learn_hashes(signed)
        except PieceCorrupt as error:
            logger.warning("hashes_conflict %s", error)
            self._post(HashesConflict(digest))
            return False
        except LocalError as error:
            logger.error("hashes_not_kept digest=%s %s", digest.short, error)
            return False
        return True

    def is_stale(self, event: Event) -> bool:
        """A piece that a delivery brought, of a blob that was voided or closed while the event waited."""
        if not isinstance(event, PieceArrived):
            return False
        blob = self._blobs.get(event.digest)
        return blob is None or blob.handle is None or not blob.handle.held >> event.piece & 1

    # --- the end -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """What is opened from now on is closed again."""
        self._closed = True

    def release(self) -> None:
        """After every thread has ended: close the files."""
        for blob in self._blobs.values():
            if blob.handle is not None:
                blob.handle.close()
        self._blobs.clear()
