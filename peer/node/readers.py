"""Clients that read blobs by the downloader: who waits to be let in, who reads, and what each may be sent.

It tells the downloader who came, where each waits and who is gone, and answers them as it says. It decides nothing but
how much of a blob may leave before its digest was checked. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import BlobWanted, ReaderAt, ReaderClosed
from peer.node.blobs import BlobFailed, DigestMismatch, NotShared
from peer.node.workers import CHECK_AHEAD_BYTES
from proto.oci.ranges import bounds_of
from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Command, Event
    from peer.downloader.machine import Downloader
    from peer.node.blobs import Allowed
    from peer.node.open_blobs import LiveBlob, OpenBlobs
    from peer.node.workers import Workers
    from peer.registry.base import Caller
    from peer.store.base import BlobHandle
    from peer.transport.delivery import DeliverySlot
    from proto.ids import Digest
    from proto.oci.ranges import ByteRange
    from proto.runtime.driver import Driver
    from proto.wire.messages import Source

logger = logging.getLogger(__name__)


# The end that is withheld until the digest passed is at least this long.
WITHHELD_BYTES_MIN: Final = 64 * 1024


class BlobReader:
    """See peer.node.blobs.OpenedBlob. `waits_for` tells which piece is waited for, `closed` that the client is done.
    It reads these `ranges`, or the whole.

    `check` has the held pieces from one on checked that were not since a time of the store's (BlobHandle.check_mark),
    some at once, and calls back on the loop with what went wrong, or nothing. The blob is woken for each.
    """

    def __init__(
        self,
        blob: LiveBlob,
        handle: BlobHandle,
        waits_for: Callable[[int], None],
        closed: Callable[[], None],
        check: Callable[[int, float, Callable[[str], None]], None],
        ranges: tuple[ByteRange, ...] = (),
    ) -> None:
        self.blob = blob
        self.handle = handle
        self._waits_for = waits_for
        self._closed: Callable[[], None] | None = closed
        self._check = check
        self._checking = False
        # Checks count from then on. Losses are those that were seen.
        self._mark = handle.check_mark()
        self._losses = handle.losses
        # The first byte that was asked for, and whether any was sent.
        self._begun = handle.layout.size_bytes
        self._sent = False
        self._piece = -1
        self.failure: BlobFailed | None = None
        layout = handle.layout
        last_bytes = layout.length(layout.count - 1) if layout.count else 0
        self._withheld_from = max(0, layout.size_bytes - max(last_bytes, WITHHELD_BYTES_MIN))
        bounds = bounds_of(ranges, layout.size_bytes)
        if bounds is not None and (0, layout.size_bytes) not in bounds:
            # Who is sent parts can only check them by what it knows itself, as if they came from the origin.
            self._withheld_from = layout.size_bytes

    @property
    def size_bytes(self) -> int:
        return self.handle.layout.size_bytes

    @property
    def stored(self) -> bool:
        return self.handle.matched or self.handle.complete

    @property
    def wrong(self) -> bool:
        return isinstance(self.failure, DigestMismatch)

    def begin(self, offset: int) -> None:
        self._begun = offset

    async def wait_available(self, offset: int) -> int:
        while True:
            changed = self.blob.changed
            end = self.available(offset)
            if end > offset:
                return end
            if self.failure is not None:
                raise self.failure
            await changed.wait()

    def available(self, offset: int) -> int:
        if self.wrong:
            return offset
        self._sent |= offset > self._begun
        self._begun = min(self._begun, offset)
        last_part, every_time = offset >= self._withheld_from, self.handle.checked_every_time
        if last_part and self.stored and not every_time:
            # Before the last bytes: what somebody wrote to the file meanwhile may have been sent.
            self.handle.check_mark()
        if not every_time:
            self._fail_if_lost(offset)
        limit = min(
            self.handle.available_from(offset), self.size_bytes if last_part and self.stored else self._withheld_from
        )
        if self.blob.withheld and not self.stored:
            limit = min(limit, self._vouched_from(offset))
        if self.wrong or limit <= offset:
            self._tell(offset)
            return offset
        if every_time:
            return limit  # whoever sends it has it checked
        checked = min(limit, self.handle.checked_from(self._begun, self._mark))
        if checked < limit and checked - offset < CHECK_AHEAD_BYTES // 2:
            self._check_from(checked)
        return max(offset, checked)

    def _vouched_from(self, offset: int) -> int:
        """The end of the bytes that run on from there for which more than a member's word stands."""
        layout = self.handle.layout
        piece = layout.piece_at(min(offset, layout.size_bytes - 1))
        if not self.blob.withheld >> piece:
            return layout.size_bytes
        return max(offset, layout.offset(first_missing(~self.blob.withheld, piece)))

    def _fail_if_lost(self, offset: int) -> None:
        """What was sent has rotted, before it was sent or after: this client gets no whole answer."""
        lost, self._losses = self.handle.lost_since(self._losses), self.handle.losses
        if lost and lost & self.handle.layout.pieces_in(self._begun, offset):
            self.fail(f"blob {self.handle.digest.short} rotted while it was sent: ask again", mismatch=True)

    def _check_from(self, offset: int) -> None:
        if not self._checking:
            self._checking = True
            self._check(self.handle.layout.piece_at(offset), self._mark, self._checked)

    def _checked(self, trouble: str) -> None:
        self._checking = False
        if trouble:
            self.fail(trouble, mismatch=False)
        self.blob.wake()

    def _tell(self, offset: int) -> None:
        layout = self.handle.layout
        if layout.count:
            piece = layout.piece_at(min(max(0, offset), layout.size_bytes - 1))
            if piece != self._piece:
                self._piece = piece
                self._waits_for(piece)

    def fail(self, message: str, *, mismatch: bool) -> None:
        """No more comes for this reader. That the content is wrong stands, whatever replaces it in the store.

        But a client to which nothing of it was given has it from its origin.
        """
        if mismatch and (self._sent or not self.blob.withheld):
            self.failure = DigestMismatch(message)
        elif self.failure is None:
            self.failure = BlobFailed(message)

    def close(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


class Readers:
    """Implements peer.node.blobs.BlobProvider. Made on a running loop.

    `range_prefetch`: all of a blob comes, if later, of which a client reads ranges.
    """

    def __init__(
        self,
        blobs: OpenBlobs,
        workers: Workers,
        delivery: DeliverySlot,
        driver: Driver[Event, Command],
        machine: Downloader,
        *,
        range_prefetch: bool = False,
    ) -> None:
        self._range_prefetch = range_prefetch
        self._blobs = blobs
        self._workers = workers
        self._delivery = delivery
        self._driver = driver
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Digest, tuple[ByteRange, ...], asyncio.Future[BlobReader]]] = {}
        self._reading: dict[int, BlobReader] = {}
        # The credentials of clients that are here, in memory alone.
        self._callers: dict[int, Caller] = {}

    def known_size(self, digest: Digest, source: Source) -> int | None:
        return self._machine.known_size(digest, source, self._driver.now())

    def caller(self, number: int) -> Caller | None:
        """With what the origin is asked on behalf of this client; None once it is gone."""
        return self._callers.get(number)

    async def open(
        self,
        digest: Digest,
        source: Source,
        allowed: Allowed | None = None,
        ranges: tuple[ByteRange, ...] = (),
        *,
        background: bool = False,
    ) -> BlobReader:
        """See BlobProvider. `background`: for no client."""
        if self._driver.closed:
            raise NotShared("off", "this node is stopping")
        number = next(self._numbers)
        answer: asyncio.Future[BlobReader] = self._loop.create_future()
        self._waiting[number] = (digest, ranges, answer)
        whole = not ranges or self._range_prefetch or self._delivery.current.brings_all
        if allowed is None:
            wanted = BlobWanted(number, digest, source, ranges=ranges, whole=whole, background=background)
        else:
            self._callers[number] = allowed.caller
            wanted = BlobWanted(number, digest, source, allowed.size_bytes, allowed.proven, ranges, whole, background)
        self._driver.post(wanted)
        try:
            return await answer
        except BaseException:
            self._reader_closed(number)
            raise
        finally:
            self._waiting.pop(number, None)

    def answer(self, number: int) -> None:
        """Let the client read: its blob is open in the store."""
        digest, ranges, answer = self._waiting.get(number, (None, (), None))
        if digest is None or answer is None or answer.done():
            return  # its client is gone, and ReaderClosed on its way
        blob = self._blobs.of(digest)
        reader = BlobReader(
            blob,
            self._blobs.handle(digest),
            lambda piece: self._reader_at(digest, number, piece),
            lambda: self._reader_closed(number),
            lambda first, mark, ended: self._check(digest, first, mark, ended),
            ranges,
        )
        self._reading[number] = reader
        answer.set_result(reader)

    def refuse(self, number: int, reason: str, message: str, retry_after_s: float) -> None:
        """Send the client to its origin."""
        _, _, answer = self._waiting.get(number, (None, (), None))
        if answer is not None and not answer.done():
            answer.set_exception(NotShared(reason, message, retry_after_s))

    def fail(self, blob: LiveBlob, message: str, *, mismatch: bool, number: int = 0) -> None:
        """No more comes for the blob's present readers, or for this one."""
        logger.warning("readers_failed digest=%s %s", blob.digest.short, message)
        for each, reader in self._reading.items():
            if reader.blob is blob and number in (0, each):
                reader.fail(message, mismatch=mismatch)
        blob.wake()

    def close(self) -> None:
        """Who waits is sent to its origin, who reads gets no more."""
        for _, _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NotShared("off", "this node is stopping"))
        for reader in self._reading.values():
            reader.fail("this node is stopping", mismatch=False)
            reader.blob.wake()

    def _check(self, digest: Digest, first: int, mark: float, ended: Callable[[str], None]) -> None:
        def ended_threadsafe(trouble: str) -> None:
            self._driver.call_threadsafe(ended, trouble)

        self._workers.check_ahead(digest, first, mark, self._blobs.waker(digest), ended_threadsafe)

    def _reader_at(self, digest: Digest, number: int, piece: int) -> None:
        self._delivery.current.reader_moved(digest, piece)
        self._driver.post(ReaderAt(number, piece))

    def _reader_closed(self, number: int) -> None:
        self._reading.pop(number, None)
        self._callers.pop(number, None)
        self._driver.post(ReaderClosed(number))
