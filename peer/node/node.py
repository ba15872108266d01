"""One node's shell around its downloader: what the rest of the peer speaks to, and what carries out the commands.

Made on a running loop. What blocks goes to the workers' threads. Nothing is decided here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import BlobEvicted, BlobFound, SharingSwitched
from peer.node.blobs import NotShared
from peer.node.driver import Driver
from peer.node.open_blobs import OpenBlobs
from peer.node.readers import Readers
from peer.transport.delivery import DeliverySlot
from proto.ids import Digest, PeerId, peer_name
from proto.wire.messages import Announce, Failed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.downloader import contract
    from peer.downloader.machine import Downloader
    from peer.metrics import Metrics
    from peer.node.readers import BlobReader
    from peer.node.workers import Workers
    from proto.wire.messages import Message, Source

logger = logging.getLogger(__name__)

_LEASE_OUTCOMES: Final = {"cancelled": "cancelled", "timeout": "expired"}


class Node:
    """Implements peer.node.blobs.BlobProvider and peer.node.command_handler.CommandHandler.

    `send` is the session's; `on_fatal` is called once if the downloader breaks.

    `supernode_key` returns the public key of the supernode that was met last, None for none. `on_source` is told where
    a blob is public.
    """

    def __init__(
        self,
        machine: Downloader,
        workers: Workers,
        metrics: Metrics,
        *,
        send: Callable[[Message], None],
        on_fatal: Callable[[], None],
        supernode_key: Callable[[], bytes | None],
        on_source: Callable[[Digest, Source], None] = lambda digest, source: None,
        delivery: DeliverySlot | None = None,
    ) -> None:
        self.workers = workers
        self.metrics = metrics
        self.delivery = delivery or DeliverySlot()
        self._send = send
        self._on_fatal = on_fatal
        self._supernode_key = supernode_key
        self._on_source = on_source
        self.driver = Driver(machine, self._failed)
        self.blobs = OpenBlobs(workers, self.delivery, self.driver.post, self.driver.call_threadsafe)
        self._readers = Readers(self.blobs, self.delivery, self.driver.post)
        self.driver.begin(self, self.blobs.is_stale)

    # --- peer.node.blobs.BlobProvider --------------------------------------------------------------------------

    async def open(self, digest: Digest, source: Source) -> BlobReader:
        if self.driver.closed:
            raise NotShared("off", "this node is stopping")
        return await self._readers.open(digest, source)

    def known_size(self, digest: Digest, source: Source) -> int | None:
        return self.driver.known_size(digest, source)

    # --- from start to end -------------------------------------------------------------------------------------

    def begin(self, found: Iterable[BlobFound], *, sharing: bool) -> None:
        """What the store holds, before anything else."""
        if not sharing:
            self.driver.post(SharingSwitched(False))
        for event in found:
            self.driver.post(event)

    def switch_sharing(self, on: bool) -> None:
        """The operator's switch."""
        self.driver.post(SharingSwitched(on))

    def evicted(self, digest: Digest) -> None:
        """From any thread: a blob left the store."""
        self.delivery.current.blob_left(digest)
        self.driver.post_threadsafe(BlobEvicted(digest))

    def close(self) -> None:
        """Handle nothing any more; clients that wait are sent to their origin."""
        self.driver.close()
        self.blobs.stop()
        self._readers.close()

    def release(self) -> None:
        """After every thread has ended: close the files."""
        self.blobs.release()

    def _failed(self) -> None:
        self.close()
        self._on_fatal()

    # --- peer.node.command_handler.CommandHandler ---------------------------------------------------------------

    def send(self, command: contract.Send) -> None:
        """To the supernode; counts how leases end."""
        message = command.message
        if isinstance(message, Stored) and message.lease:
            self.metrics.lease("stored")
        elif isinstance(message, Failed):
            self.metrics.lease(_LEASE_OUTCOMES.get(message.reason, "failed"))
        elif command.with_hashes and isinstance(message, Announce):
            message = replace(message, hashes=self.workers.all_hashes(Digest.parse(message.digest)))
        self._send(message)

    # --- the store ---------------------------------------------------------------------------------------------

    def open_in_store(self, command: contract.OpenInStore) -> None:
        self.blobs.open(command)

    def close_in_store(self, command: contract.CloseInStore) -> None:
        self.blobs.close(command.digest)

    def void_in_store(self, command: contract.VoidInStore) -> None:
        self.blobs.void(command.digest)

    def check_digest(self, command: contract.CheckDigest) -> None:
        handle, waker = self.blobs.handle(command.digest), self.blobs.waker(command.digest)
        self.workers.check_digest(command.check, handle, self.driver.post_threadsafe, waker)

    def store_content(self, command: contract.StoreContent) -> None:
        self.workers.store_content(command, self.blobs.handle(command.digest), self.driver.post_threadsafe)

    # --- transfers ---------------------------------------------------------------------------------------------

    def start_fetch(self, command: contract.StartFetch) -> None:
        key = self._supernode_key()
        from_seed = key is not None and command.holder.peer == peer_name(PeerId(key))
        handle, ticket = self.blobs.handle(command.digest), self.blobs.of(command.digest).ticket
        self.workers.fetch(command, handle, ticket, key, from_seed, self.driver.post_threadsafe)

    def cancel_fetch(self, command: contract.CancelFetch) -> None:
        self.workers.cancel_fetch(command.fetch)

    def fetch_upstream(self, command: contract.FetchUpstream) -> None:
        self.workers.fetch_upstream(command, self.blobs.handle(command.digest), self.driver.post_threadsafe)

    def cancel_upstream(self, command: contract.CancelUpstream) -> None:
        self.workers.cancel_upstream(command.fetch)

    def check_public(self, command: contract.CheckPublic) -> None:
        self.workers.check_public(command, self.driver.post_threadsafe)

    def ask_holdings(self, command: contract.AskHoldings) -> None:
        ticket = self.blobs.of(command.digest).ticket
        self.workers.ask_holdings(command, ticket, self._supernode_key(), self.driver.post_threadsafe)

    # --- readers -----------------------------------------------------------------------------------------------

    def answer_reader(self, command: contract.AnswerReader) -> None:
        self._readers.answer(command.reader)

    def refuse_reader(self, command: contract.RefuseReader) -> None:
        self._readers.refuse(command.reader, command.reason, command.message)

    def fail_readers(self, command: contract.FailReaders) -> None:
        self._readers.fail(self.blobs.of(command.digest), command.message, mismatch=command.mismatch)

    def piece_held(self, command: contract.PieceHeld) -> None:
        self.blobs.of(command.digest).wake()

    def blob_complete(self, command: contract.BlobComplete) -> None:
        digest = command.digest
        logger.info("blob_complete digest=%s bytes=%d", digest.short, self.blobs.handle(digest).layout.size_bytes)
        self.blobs.of(digest).wake()
        self.delivery.current.blob_complete(digest)

    # --- what is remembered ------------------------------------------------------------------------------------

    def source_public(self, command: contract.SourcePublic) -> None:
        self._on_source(command.digest, command.source)

    def forget_blob(self, command: contract.ForgetBlob) -> None:
        self.blobs.forget(command.digest)
