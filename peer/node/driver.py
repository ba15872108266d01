"""Runs the downloader: events into one inbox, handled once a turn of the loop; its commands carried out.

The one owner of the machine. It implements peer.node.blobs.BlobProvider for the proxy, whose readers
peer.node.readers keeps. What blocks goes to the threads of peer.node.workers, what the supernode says comes by
peer.node.supernode_connection; what the machine decides is never second-guessed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import operator
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from peer.downloader import contract
from peer.downloader.contract import (
    BlobEvicted,
    BlobFound,
    Command,
    Event,
    HashesConflict,
    SharingSwitched,
    StoreOpened,
    StoreRefused,
    Wakeup,
)
from peer.node.blobs import NotShared
from peer.node.live_blob import LiveBlob, hashes_mask
from peer.node.readers import Readers
from peer.transport.delivery import DeliverySlot
from proto.errors import LocalError, PieceCorrupt
from proto.ids import Digest, PeerId, peer_name
from proto.wire.messages import Announce, Failed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.downloader.machine import Downloader
    from peer.metrics import Metrics
    from peer.node.live_blob import BlobReader
    from peer.node.workers import Work
    from peer.store.base import BlobHandle, SignedHashes
    from peer.transport.base import PieceSource
    from proto.pieces import PieceLayout
    from proto.wire.messages import Message, Source

logger = logging.getLogger(__name__)

EVENTS_PER_TURN_MAX: Final = 512


class Driver:
    """Made on a running loop. `send` is the session's; `on_fatal` is called once if the machine breaks."""

    def __init__(
        self,
        machine: Downloader,
        work: Work,
        metrics: Metrics,
        *,
        send: Callable[[Message], None],
        on_fatal: Callable[[], None],
        on_source: Callable[[Digest, Source], None] = lambda digest, source: None,
        delivery: DeliverySlot | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._work = work
        self._metrics = metrics
        self._send_message = send
        self._on_fatal = on_fatal
        self._on_source = on_source
        self._delivery = delivery or DeliverySlot()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._armed = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._blobs: dict[Digest, LiveBlob] = {}
        self._readers = Readers(self._blobs, self._delivery, self.post)
        self.supernode_key: bytes | None = None

    # --- peer.node.blobs.BlobProvider -------------------------------------------------------------------------------

    async def open(self, digest: Digest, source: Source) -> BlobReader:
        """See BlobProvider."""
        if self._closed:
            raise NotShared("off", "this node is stopping")
        return await self._readers.open(digest, source)

    def known_size(self, digest: Digest, source: Source) -> int | None:
        """See BlobProvider."""
        return self._machine.known_size(digest, source, self._clock())

    # --- the machine -------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Queue an event for this turn of the loop."""
        if self._closed:
            return
        self._inbox.append(event)
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def post_threadsafe(self, event: Event) -> None:
        """The same from any thread; handled as soon as the loop wakes."""
        try:
            self._loop.call_soon_threadsafe(self._take, event)
        except RuntimeError:
            # The loop is closed: the process ends, and nobody waits for this.
            logger.debug("event_dropped %s", type(event).__name__)

    def _take(self, event: Event) -> None:
        if self._closed:
            return
        self._inbox.append(event)
        if not self._armed:
            self._turn()

    def _call_threadsafe(self, call: Callable[[Digest], None], digest: Digest) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(call, digest)

    def _waker(self, digest: Digest) -> Callable[[], None]:
        """Has the blob's readers look again, from any thread."""
        return functools.partial(self._call_threadsafe, self._wake, digest)

    def _wake(self, digest: Digest) -> None:
        blob = self._blobs.get(digest)
        if blob is not None:
            blob.wake()

    def begin(self, found: Iterable[BlobFound], *, sharing: bool) -> None:
        """What the store holds, before anything else."""
        if not sharing:
            self.post(SharingSwitched(False))
        for event in found:
            self.post(event)

    def switch_sharing(self, on: bool) -> None:
        """The operator's switch."""
        self.post(SharingSwitched(on))

    def evicted(self, digest: Digest) -> None:
        """From any thread: a blob left the store."""
        self._delivery.current.blob_left(digest)
        self.post_threadsafe(BlobEvicted(digest))

    def close(self) -> None:
        """Nothing is handled any more; who waits is sent to its origin, and the store's pins go."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._readers.close()

    def release(self) -> None:
        """After every thread has ended: close the files."""
        for blob in self._blobs.values():
            if blob.handle is not None:
                blob.handle.close()
        self._blobs.clear()

    def story(self, digest: Digest, piece: int | None = None) -> list[str]:
        """Why a blob, or one piece of it, stands as it does."""
        return self._machine.story(digest, piece)

    def tell_open_blobs(self) -> None:
        """A delivery that was just selected hears of the blobs that are open."""
        for blob in self._blobs.values():
            if blob.handle is not None:
                self._delivery.current.blob_opened(blob.digest)

    @property
    def downloads(self) -> int:
        """Blobs that are wanted and not complete."""
        return len(self._machine.state.busy)

    def _turn(self) -> None:
        self._armed = False
        if self._closed:
            return
        try:
            now = self._clock()
            for _ in range(min(len(self._inbox), EVENTS_PER_TURN_MAX)):
                event = self._inbox.popleft()
                if isinstance(event, contract.PieceArrived) and not self._still_held(event):
                    continue
                for command in self._machine.handle(event, now):
                    self._carry_out(command)
            self._set_timer(now)
        except Exception:
            logger.critical("downloader_failed: a bug of ours, the process ends", exc_info=True)
            self.close()
            self._on_fatal()
            return
        if self._inbox and not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _still_held(self, event: contract.PieceArrived) -> bool:
        """The blob may have been voided while the event waited."""
        blob = self._blobs.get(event.digest)
        return blob is not None and blob.handle is not None and bool(blob.handle.held >> event.piece & 1)

    def connect(self, source: PieceSource) -> None:
        """Something will soon be fetched from there."""
        self._work.connect(source)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.next_wakeup()
        if due is not None:
            self._timer = self._loop.call_later(max(0.001, due - now), self.post, Wakeup())

    # --- commands ----------------------------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case contract.Send():
                self._send(command)
            case contract.StartFetch():
                blob = self._blobs[command.digest]
                assert blob.handle is not None
                seed, post = self._is_seed(command), self.post_threadsafe
                self._work.fetch(command, blob.handle, blob.ticket, self.supernode_key, seed, post)
            case contract.CancelFetch(fetch):
                self._work.cancel_fetch(fetch)
            case contract.PieceHeld(digest, _):
                self.blob(digest).wake()
            case contract.AnswerReader(reader):
                self._readers.answer(reader)
            case contract.RefuseReader(reader, reason, message):
                self._readers.refuse(reader, reason, message)
            case contract.FailReaders(digest, mismatch, message):
                self._readers.fail(self.blob(digest), message, mismatch=mismatch)
            case _:
                self._carry_out_work(command)

    def _carry_out_work(self, command: Command) -> None:
        match command:
            case contract.OpenInStore():
                self._open_in_store(command)
            case contract.StoreContent(_, digest):
                self._work.store_content(command, self._handle(digest), self.post_threadsafe)
            case contract.FetchUpstream():
                self._work.fetch_upstream(command, self._handle(command.digest), self.post_threadsafe)
            case contract.CancelUpstream(fetch):
                self._work.cancel_upstream(fetch)
            case contract.CheckDigest(check, digest):
                self._work.check_digest(check, self._handle(digest), self.post_threadsafe, self._waker(digest))
            case contract.CheckPublic():
                self._work.check_public(command, self.post_threadsafe)
            case contract.AskHoldings():
                ticket = self.blob(command.digest).ticket
                self._work.ask_holdings(command, ticket, self.supernode_key, self.post_threadsafe)
            case _:
                self._carry_out_local(command)

    def _carry_out_local(self, command: Command) -> None:
        match command:
            case contract.CloseInStore(digest):
                self._close_in_store(self.blob(digest))
            case contract.VoidInStore(digest):
                self._void(digest)
            case contract.BlobComplete(digest):
                blob = self.blob(digest)
                logger.info("blob_complete digest=%s bytes=%d", digest.short, self._handle(digest).layout.size_bytes)
                blob.wake()
                self._delivery.current.blob_complete(digest)
            case contract.SourcePublic(digest, source):
                self._on_source(digest, source)
            case contract.ForgetBlob(digest):
                self._blobs.pop(digest, None)

    def blob(self, digest: Digest) -> LiveBlob:
        """What is kept beside the downloader of a blob; made when it is new."""
        found = self._blobs.get(digest)
        if found is None:
            found = self._blobs[digest] = LiveBlob(digest)
        return found

    def _handle(self, digest: Digest) -> BlobHandle:
        handle = self._blobs[digest].handle
        assert handle is not None, "the downloader works on open blobs alone"
        return handle

    def _is_seed(self, command: contract.StartFetch) -> bool:
        return self.supernode_key is not None and command.holder.peer == peer_name(PeerId(self.supernode_key))

    def _send(self, command: contract.Send) -> None:
        message = command.message
        if isinstance(message, Stored) and message.lease:
            self._metrics.lease("stored")
        elif isinstance(message, Failed):
            outcome = {"cancelled": "cancelled", "timeout": "expired"}.get(message.reason, "failed")
            self._metrics.lease(outcome)
        elif command.with_hashes and isinstance(message, Announce):
            message = replace(message, hashes=self._work.all_hashes(Digest.parse(message.digest)))
        self._send_message(message)

    def _close_in_store(self, blob: LiveBlob) -> None:
        handle, blob.handle = blob.handle, None
        if handle is not None:
            if not (handle.complete or handle.matched):
                self._delivery.current.blob_left(blob.digest)
            handle.close()

    def _void(self, digest: Digest) -> None:
        self.blob(digest).early_hashes.clear()
        self._delivery.current.blob_voided(digest)
        try:
            self._handle(digest).void()
        except LocalError as error:
            logger.error("blob_not_voided digest=%s %s", digest.short, error)

    # --- the store ---------------------------------------------------------------------------------------------

    def _open_in_store(self, command: contract.OpenInStore) -> None:
        self._work.open(command, self._store_opened_threadsafe)

    def _store_opened_threadsafe(self, digest: Digest, layout: PieceLayout, opened: BlobHandle | str) -> None:
        """From the store's thread: a handle, or what is wrong."""
        try:
            self._loop.call_soon_threadsafe(self._store_opened, digest, layout, opened)
        except RuntimeError:
            if not isinstance(opened, str):
                opened.close()

    def _store_opened(self, digest: Digest, layout: PieceLayout, opened: BlobHandle | str) -> None:
        if isinstance(opened, str):
            logger.error("store_refused digest=%s %s", digest.short, opened)
            self.post(StoreRefused(digest, opened))
            return
        if self._closed or opened.layout != layout:
            opened.close()
            self.post(StoreRefused(digest, "the blob is stored in other pieces than the swarm's"))
            return
        try:
            hashed = functools.reduce(operator.or_, map(hashes_mask, opened.signed_hashes), 0)
        except LocalError as error:
            logger.error("store_refused digest=%s %s", digest.short, error)
            opened.close()
            self.post(StoreRefused(digest, str(error)))
            return
        blob = self.blob(digest)
        blob.handle, blob.layout = opened, opened.layout
        # Before the hashes that waited: a conflict with them voids an open blob alone.
        self.post(StoreOpened(digest, opened.held, hashed, opened.complete))
        early, blob.early_hashes = blob.early_hashes, []
        for signed in early:
            self.learn(blob, signed)
        self._delivery.current.blob_opened(digest)

    def learn(self, blob: LiveBlob, signed: SignedHashes) -> bool:
        """Give checked hashes to the store, now or when the blob is open; False when they are of no use."""
        if blob.handle is None:
            if blob.layout is None:
                blob.early_hashes.append(signed)
            else:  # it was open, and rests
                self._work.keep_hashes(blob.digest, signed)
            return True
        try:
            blob.handle.learn_hashes(signed)
        except PieceCorrupt as error:
            logger.warning("hashes_conflict %s", error)
            self.post(HashesConflict(blob.digest))
            return False
        except LocalError as error:
            logger.error("hashes_not_kept digest=%s %s", blob.digest.short, error)
            return False
        return True
