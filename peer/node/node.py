"""One node's shell around its downloader: puts the parts together, and is what the rest of the peer speaks to.

Made on a running loop. It implements peer.node.blobs.BlobProvider for the proxy, and keeps for the supernode's
messages what belongs to a blob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.contract import BlobEvicted, BlobFound, SharingSwitched
from peer.node.blobs import NotShared
from peer.node.commands import ServiceCommands
from peer.node.driver import Driver
from peer.node.open_blobs import OpenBlobs
from peer.node.readers import Readers
from peer.transport.delivery import DeliverySlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.downloader.machine import Downloader
    from peer.metrics import Metrics
    from peer.node.live_blob import BlobReader
    from peer.node.workers import Workers
    from proto.ids import Digest
    from proto.wire.messages import Message, Source


class Node:
    """`send` is the session's; `on_fatal` is called once if the downloader breaks.

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
        self._on_fatal = on_fatal
        self.driver = Driver(machine, self._failed)
        self.blobs = OpenBlobs(workers, self.delivery, self.driver.post, self.driver.call_threadsafe)
        self._readers = Readers(self.blobs, self.delivery, self.driver.post)
        commands = ServiceCommands(
            self.blobs,
            self._readers,
            workers,
            self.delivery,
            metrics,
            self.driver.post_threadsafe,
            send=send,
            supernode_key=supernode_key,
            on_source=on_source,
        )
        self.driver.begin(commands, self.blobs.is_stale)

    # --- peer.node.blobs.BlobProvider --------------------------------------------------------------------------

    async def open(self, digest: Digest, source: Source) -> BlobReader:
        """See BlobProvider."""
        if self.driver.closed:
            raise NotShared("off", "this node is stopping")
        return await self._readers.open(digest, source)

    def known_size(self, digest: Digest, source: Source) -> int | None:
        """See BlobProvider."""
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
        """Nothing is handled any more; who waits is sent to its origin."""
        self.driver.close()
        self.blobs.stop()
        self._readers.close()

    def release(self) -> None:
        """After every thread has ended: close the files."""
        self.blobs.release()

    def _failed(self) -> None:
        self.close()
        self._on_fatal()
