"""Clients that read blobs by the downloader: who waits to be let in, who reads, and what each is told.

It tells the downloader who came, where each waits and who is gone, and answers them as it says; it decides nothing, and
how much of a blob may be sent is peer.node.live_blob's. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from peer.downloader.contract import BlobWanted, Event, ReaderAt, ReaderClosed
from peer.node.blobs import NotShared
from peer.node.live_blob import BlobReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.node.live_blob import LiveBlob
    from peer.node.open_blobs import OpenBlobs
    from peer.transport.delivery import DeliverySlot
    from proto.ids import Digest
    from proto.wire.messages import Source

logger = logging.getLogger(__name__)


class Readers:
    """Made on a running loop. `post` brings the downloader an event."""

    def __init__(self, blobs: OpenBlobs, delivery: DeliverySlot, post: Callable[[Event], None]) -> None:
        self._blobs = blobs
        self._delivery = delivery
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Digest, asyncio.Future[BlobReader]]] = {}

    async def open(self, digest: Digest, source: Source) -> BlobReader:
        """See peer.node.blobs.BlobProvider."""
        number = next(self._numbers)
        answer: asyncio.Future[BlobReader] = self._loop.create_future()
        self._waiting[number] = (digest, answer)
        self._post(BlobWanted(number, digest, source))
        try:
            return await answer
        except BaseException:
            self._reader_closed(digest, number)
            raise
        finally:
            self._waiting.pop(number, None)

    def answer(self, number: int) -> None:
        """Let the client read: its blob is open in the store."""
        digest, answer = self._waiting.get(number, (None, None))
        if digest is None or answer is None or answer.done():
            return  # its client is gone, and ReaderClosed on its way
        blob = self._blobs.of(digest)
        reader = BlobReader(
            blob,
            self._blobs.handle(digest),
            lambda piece: self._reader_at(digest, number, piece),
            lambda: self._reader_closed(digest, number),
        )
        blob.readers[number] = reader
        answer.set_result(reader)

    def refuse(self, number: int, reason: str, message: str) -> None:
        """Send the client to its origin."""
        _, answer = self._waiting.get(number, (None, None))
        if answer is not None and not answer.done():
            answer.set_exception(NotShared(reason, message))

    def fail(self, blob: LiveBlob, message: str, *, mismatch: bool) -> None:
        """No more comes for the blob's present readers."""
        logger.warning("readers_failed digest=%s %s", blob.digest.short, message)
        for reader in blob.readers.values():
            reader.fail(message, mismatch=mismatch)
        blob.wake()

    def close(self) -> None:
        """Who waits is sent to its origin, who reads gets no more."""
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NotShared("off", "this node is stopping"))
        for blob in self._blobs:
            for reader in blob.readers.values():
                reader.fail("this node is stopping", mismatch=False)
            blob.wake()

    def _reader_at(self, digest: Digest, number: int, piece: int) -> None:
        self._delivery.current.reader_moved(digest, piece)
        self._post(ReaderAt(number, piece))

    def _reader_closed(self, digest: Digest, number: int) -> None:
        blob = self._blobs.find(digest)
        if blob is not None:
            blob.readers.pop(number, None)
        self._post(ReaderClosed(number))
