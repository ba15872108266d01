"""One node's shell around its downloader: what the rest of the peer speaks to, and what carries out the commands.

Made on a running loop. What blocks goes to the workers' threads. Nothing is decided here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import (
    BlobEvicted,
    BlobFound,
    PiecesRotten,
    SharingSwitched,
    UpstreamEnded,
    Wakeup,
)
from peer.node.clock import SupernodeClock
from peer.node.command_handler import methods_of
from peer.node.message_handler import MessageHandler
from peer.node.open_blobs import OpenBlobs
from peer.node.preheats import Preheats
from peer.node.private_bytes import PrivateBytes
from peer.node.readers import Readers
from peer.registry.base import NODE
from peer.transport.base import PieceSource
from peer.transport.delivery import DeliverySlot
from proto.errors import TicketInvalid
from proto.ids import PeerId, PeerName, peer_name
from proto.runtime.driver import Driver
from proto.wire.messages import Announce, BlobChecked, Failed, Stored
from proto.wire.tickets import check_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.downloader import contract
    from peer.downloader.machine import Downloader
    from peer.metrics import Metrics
    from peer.node.session import Send
    from peer.node.supernode_key import SupernodeKey
    from peer.node.workers import Workers
    from peer.store.base import SignedHashes
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.handshake import Challenge, Hello
    from proto.wire.messages import Message, NodeKnown, PieceHashes, Preheat, Source, SwarmOpened

logger = logging.getLogger(__name__)

# So much later the downloader may hear that one of its limits is over, the least of which takes half a second.
LOOK_S: Final = 0.02
_LEASE_OUTCOMES: Final = {"cancelled": "cancelled", "timeout": "expired"}


class Node:
    """Implements peer.node's command_handler.CommandHandler, message_handler.NodeKeeper and session.SessionOwner.

    Clients read by `readers`. `send` is the session's, `hello` answers its challenge; `on_fatal` is called once
    if the downloader breaks. `on_source` is called with where a blob is public; `private_bytes` keeps which are not.
    """

    def __init__(
        self,
        machine: Downloader,
        workers: Workers,
        metrics: Metrics,
        *,
        send: Send,
        hello: Callable[[Challenge], Hello],
        on_fatal: Callable[[], None],
        supernode_key: SupernodeKey,
        clock: SupernodeClock | None = None,
        on_source: Callable[[Digest, Source], None] = lambda digest, source: None,
        private_bytes: PrivateBytes | None = None,
        delivery: DeliverySlot | None = None,
        range_prefetch: bool = False,
    ) -> None:
        self._workers = workers
        self._metrics = metrics
        self.delivery = delivery or DeliverySlot()
        self._send = send
        self.hello = hello
        self._on_fatal = on_fatal
        self.supernode_key = supernode_key
        self._clock = clock or SupernodeClock()
        self._on_source = on_source
        self.private_bytes = private_bytes or PrivateBytes()
        self.machine = machine
        self.driver: Driver[contract.Event, contract.Command] = Driver(machine, Wakeup(), self._failed, look_s=LOOK_S)
        self._blobs = OpenBlobs(workers, self.delivery, self.driver.post, self.driver.call_threadsafe)
        self.readers = Readers(self._blobs, workers, self.delivery, self.driver, machine, range_prefetch=range_prefetch)
        self._preheats = Preheats(self.readers, self.driver.post, self._send)
        self._messages = MessageHandler(self, self.delivery, self.driver.post)
        self._methods = methods_of(self)
        self.driver.begin(self._carry_out, self._blobs.is_stale)

    # --- from start to end -------------------------------------------------------------------------------------

    def begin(self, found: Iterable[BlobFound], *, sharing: bool) -> None:
        """What the store holds, before anything else."""
        if not sharing:
            self.driver.post(SharingSwitched(False))
        for event in found:
            if event.private_at:
                self.private_bytes.found(event.digest)
            self.driver.post(event)

    def switch_sharing(self, on: bool) -> None:
        """The operator's switch."""
        self.driver.post(SharingSwitched(on))

    def evicted(self, digest: Digest) -> None:
        """From any thread: a blob left the store."""
        self.delivery.current.blob_left(digest)
        self.driver.post_threadsafe(BlobEvicted(digest))

    def rotten(self, digest: Digest, pieces: int) -> None:
        """From any thread: held pieces (mask) were found rotten and are missing now."""
        self.driver.post_threadsafe(PiecesRotten(digest, pieces))
        self._blobs.pieces_rotten(digest)

    def close(self) -> None:
        """Handle nothing any more; clients that wait are sent to their origin."""
        self.driver.close()
        self._preheats.close()
        self._blobs.stop()
        self.readers.close()

    def release(self) -> None:
        """After every thread has ended: close the files."""
        self._blobs.release()

    def _carry_out(self, command: contract.Command) -> None:
        self._methods[type(command)](command)

    def _failed(self, error: BaseException | None) -> None:
        logger.critical("downloader_failed: a bug of ours, the process ends", exc_info=error)
        self.close()
        self._on_fatal()

    # --- peer.node.session.SessionOwner -------------------------------------------------------------------------

    def opened(self, challenge: Challenge) -> None:
        """Numbers start anew. A delivery that was just selected hears of the blobs that are open."""
        self.supernode_key.trust(challenge.supernode)
        self._clock.resume()
        self._metrics.supernode_connected.set(1)
        self._blobs.tell_delivery()
        self._messages.session_opened()

    def answered(self) -> None:
        """A session is about to be opened, or was refused for now."""
        self._messages.supernode_answered()

    def clock_received(self, unix_s: float) -> None:
        """Tickets are judged by this clock."""
        self._clock.set(unix_s)

    def lost(self, reason: str, *, silent: bool) -> None:
        """Its numbers mean nothing any more."""
        self._clock.lost()
        logger.debug("link_lost reason=%s", reason)
        self._metrics.supernode_connected.set(0)
        self._messages.session_lost(silent=silent)

    def received(self, message: Message) -> None:
        """A message other than the session's own."""
        self._messages.received(message)

    # --- peer.node.message_handler.NodeKeeper ------------------------------------------------------------------

    def keep_ticket(self, digest: Digest, ticket: bytes) -> None:
        self._blobs.of(digest).ticket = ticket

    def check_hashes(self, digest: Digest, layout: PieceLayout, hashes: PieceHashes) -> None:
        key = self.supernode_key.value
        if key is None:
            raise TicketInvalid("no supernode was ever met")
        check_hashes(key, digest, layout, hashes.first, hashes.hashes, hashes.signature)

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        return self._blobs.learn_hashes(digest, signed)

    def connect_to_seed(self, seed: NodeKnown, opened: SwarmOpened) -> None:
        source = PieceSource(PeerName(seed.peer), seed.address, opened.private)
        self._workers.transport.connect(source, opened.ticket)

    def lease_granted(self) -> None:
        self._metrics.lease("granted")

    def preheat(self, digest: Digest, preheat: Preheat) -> None:
        self._preheats.received(digest, preheat)

    def keep(self, digests: frozenset[Digest]) -> None:
        self._workers.keep(digests)

    def suspect(self, digest: Digest, piece: int) -> None:
        self._workers.store.suspect(digest, 1 << piece)

    # --- peer.node.command_handler.CommandHandler ---------------------------------------------------------------

    def send(self, command: contract.Send) -> None:
        """To the supernode; counts how leases end."""
        message = command.message
        if isinstance(message, Stored) and message.lease:
            self._metrics.lease("stored")
        elif isinstance(message, Failed):
            self._metrics.lease(_LEASE_OUTCOMES.get(message.reason, "failed"))
        elif isinstance(message, Announce) and (span := self._workers.spans.parent(message.digest)) is not None:
            # What the supernode does for it is told below the request that waits.
            message = replace(message, trace=span.context)
        # That a blob is complete here ends what is repeated to us, and no more: it needs no frame of its own.
        self._send(message, soon=not (isinstance(message, BlobChecked) and message.matches))

    # --- the store ---------------------------------------------------------------------------------------------

    def open_in_store(self, command: contract.OpenInStore) -> None:
        self._blobs.open(command)

    def close_in_store(self, command: contract.CloseInStore) -> None:
        self._blobs.close(command.digest)
        self._preheats.closed(command.digest)

    def void_in_store(self, command: contract.VoidInStore) -> None:
        self._blobs.void(command.digest)

    def check_digest(self, command: contract.CheckDigest) -> None:
        handle, waker = self._blobs.handle(command.digest), self._blobs.waker(command.digest)
        self._workers.check_digest(command.check, handle, self.driver.post_threadsafe, waker)

    def store_content(self, command: contract.StoreContent) -> None:
        self._workers.store_content(command, self._blobs.handle(command.digest), self.driver.post_threadsafe)

    # --- transfers ---------------------------------------------------------------------------------------------

    def start_fetch(self, command: contract.StartFetch) -> None:
        key = self.supernode_key.value
        from_seed = key is not None and command.holder.peer == peer_name(PeerId(key))
        handle, ticket = self._blobs.handle(command.digest), self._blobs.of(command.digest).ticket
        self._workers.fetch(command, handle, ticket, key, from_seed, self.driver.post_threadsafe)

    def cancel_fetch(self, command: contract.CancelFetch) -> None:
        self._workers.transport.cancel(command.fetch)

    def fetch_upstream(self, command: contract.FetchUpstream) -> None:
        caller = self.readers.caller(command.reader) if command.reader else NODE
        if caller is None:
            self.driver.post(UpstreamEnded(command.fetch, "cancelled", "the client whose credential it was is gone"))
            return
        handle = self._blobs.handle(command.digest)
        self._metrics.fallback(command.why)
        self._workers.fetcher.start(command, handle, self.driver.post_threadsafe, caller)

    def cancel_upstream(self, command: contract.CancelUpstream) -> None:
        self._workers.fetcher.stop(command.fetch)

    def leave_origin(self, command: contract.LeaveOrigin) -> None:
        self._workers.leave_origin(command)

    def check_public(self, command: contract.CheckPublic) -> None:
        self._workers.check_public(command, self.driver.post_threadsafe)

    def ask_holdings(self, command: contract.AskHoldings) -> None:
        ticket = self._blobs.of(command.digest).ticket
        self._workers.ask_holdings(command, ticket, self.supernode_key.value, self.driver.post_threadsafe)

    # --- readers -----------------------------------------------------------------------------------------------

    def answer_reader(self, command: contract.AnswerReader) -> None:
        self.readers.answer(command.reader)

    def refuse_reader(self, command: contract.RefuseReader) -> None:
        self.readers.refuse(command.reader, command.reason, command.message, command.retry_after_s)

    def fail_readers(self, command: contract.FailReaders) -> None:
        blob = self._blobs.of(command.digest)
        self.readers.fail(blob, command.message, mismatch=command.mismatch, number=command.reader)

    def piece_held(self, command: contract.PieceHeld) -> None:
        self._blobs.of(command.digest).wake()

    def withhold(self, command: contract.Withhold) -> None:
        blob = self._blobs.of(command.digest)
        blob.withheld = command.pieces
        blob.wake()

    def blob_complete(self, command: contract.BlobComplete) -> None:
        digest = command.digest
        logger.info("blob_complete digest=%s bytes=%d", digest.short, self._blobs.handle(digest).layout.size_bytes)
        self._blobs.of(digest).wake()
        self.delivery.current.blob_complete(digest)
        self._preheats.complete(digest)

    # --- what is remembered ------------------------------------------------------------------------------------

    def source_public(self, command: contract.SourcePublic) -> None:
        self._on_source(command.digest, command.source)

    def bytes_private(self, command: contract.BytesPrivate) -> None:
        self.private_bytes.set(command.digest, command.upstreams)

    def forget_blob(self, command: contract.ForgetBlob) -> None:
        self.private_bytes.set(command.digest, ())
        self._preheats.closed(command.digest)
        self._blobs.forget(command.digest)
