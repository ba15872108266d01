"""The downloader's commands on a real node: each goes to the part of the node that carries it out.

What blocks goes to the workers' threads. Nothing is decided here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from proto.ids import Digest, PeerId, peer_name
from proto.wire.messages import Announce, Failed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader import contract
    from peer.downloader.contract import Event
    from peer.metrics import Metrics
    from peer.node.open_blobs import OpenBlobs
    from peer.node.readers import Readers
    from peer.node.workers import Workers
    from peer.transport.delivery import DeliverySlot
    from proto.wire.messages import Message, Source

logger = logging.getLogger(__name__)

_LEASE_OUTCOMES = {"cancelled": "cancelled", "timeout": "expired"}


class ServiceCommands:
    """Implements peer.node.command_handler.CommandHandler. `post` brings the downloader an event from any thread."""

    def __init__(
        self,
        blobs: OpenBlobs,
        readers: Readers,
        workers: Workers,
        delivery: DeliverySlot,
        metrics: Metrics,
        post: Callable[[Event], None],
        *,
        send: Callable[[Message], None],
        supernode_key: Callable[[], bytes | None],
        on_source: Callable[[Digest, Source], None],
    ) -> None:
        """`on_source` is told where a blob is public, to be remembered."""
        self._blobs = blobs
        self._readers = readers
        self._workers = workers
        self._delivery = delivery
        self._metrics = metrics
        self._post = post
        self._send = send
        self._supernode_key = supernode_key
        self._on_source = on_source

    def send(self, command: contract.Send) -> None:
        """To the supernode; counts how leases end."""
        message = command.message
        if isinstance(message, Stored) and message.lease:
            self._metrics.lease("stored")
        elif isinstance(message, Failed):
            self._metrics.lease(_LEASE_OUTCOMES.get(message.reason, "failed"))
        elif command.with_hashes and isinstance(message, Announce):
            message = replace(message, hashes=self._workers.all_hashes(Digest.parse(message.digest)))
        self._send(message)

    # --- the store ---------------------------------------------------------------------------------------------

    def open_in_store(self, command: contract.OpenInStore) -> None:
        self._blobs.open(command)

    def close_in_store(self, command: contract.CloseInStore) -> None:
        self._blobs.close(command.digest)

    def void_in_store(self, command: contract.VoidInStore) -> None:
        self._blobs.void(command.digest)

    def check_digest(self, command: contract.CheckDigest) -> None:
        handle, waker = self._blobs.handle(command.digest), self._blobs.waker(command.digest)
        self._workers.check_digest(command.check, handle, self._post, waker)

    def store_content(self, command: contract.StoreContent) -> None:
        self._workers.store_content(command, self._blobs.handle(command.digest), self._post)

    # --- transfers ---------------------------------------------------------------------------------------------

    def start_fetch(self, command: contract.StartFetch) -> None:
        key = self._supernode_key()
        from_seed = key is not None and command.holder.peer == peer_name(PeerId(key))
        handle, ticket = self._blobs.handle(command.digest), self._blobs.of(command.digest).ticket
        self._workers.fetch(command, handle, ticket, key, from_seed, self._post)

    def cancel_fetch(self, command: contract.CancelFetch) -> None:
        self._workers.cancel_fetch(command.fetch)

    def fetch_upstream(self, command: contract.FetchUpstream) -> None:
        self._workers.fetch_upstream(command, self._blobs.handle(command.digest), self._post)

    def cancel_upstream(self, command: contract.CancelUpstream) -> None:
        self._workers.cancel_upstream(command.fetch)

    def check_public(self, command: contract.CheckPublic) -> None:
        self._workers.check_public(command, self._post)

    def ask_holdings(self, command: contract.AskHoldings) -> None:
        ticket = self._blobs.of(command.digest).ticket
        self._workers.ask_holdings(command, ticket, self._supernode_key(), self._post)

    # --- readers -----------------------------------------------------------------------------------------------

    def answer_reader(self, command: contract.AnswerReader) -> None:
        self._readers.answer(command.reader)

    def refuse_reader(self, command: contract.RefuseReader) -> None:
        self._readers.refuse(command.reader, command.reason, command.message)

    def fail_readers(self, command: contract.FailReaders) -> None:
        self._readers.fail(self._blobs.of(command.digest), command.message, mismatch=command.mismatch)

    def piece_held(self, command: contract.PieceHeld) -> None:
        self._blobs.of(command.digest).wake()

    def blob_complete(self, command: contract.BlobComplete) -> None:
        digest = command.digest
        logger.info("blob_complete digest=%s bytes=%d", digest.short, self._blobs.handle(digest).layout.size_bytes)
        self._blobs.of(digest).wake()
        self._delivery.current.blob_complete(digest)

    # --- what is remembered ------------------------------------------------------------------------------------

    def source_public(self, command: contract.SourcePublic) -> None:
        self._on_source(command.digest, command.source)

    def forget_blob(self, command: contract.ForgetBlob) -> None:
        self._blobs.forget(command.digest)
