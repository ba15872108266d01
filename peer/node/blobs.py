"""What the proxy asks of the rest of the node: open a blob, wait for its bytes, report how far the client has read.

The downloader's driver implements it; the proxy knows nothing of swarms, leases or supernodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from proto.errors import LayercastError

if TYPE_CHECKING:
    from peer.registry.base import Caller
    from peer.store.base import BlobHandle
    from proto.ids import Digest
    from proto.oci.ranges import ByteRange
    from proto.wire.messages import Source


class NotShared(LayercastError):
    """This blob is not for peer-to-peer here and now: pass the client's request through to its origin.

    `reason` is one of private (the origin is to be asked whether this client may read it), unknown, unavailable, slow,
    rate_limited, limit, foreign (the bytes here are another origin's), off, store, link, changed
    (what was known of it is void: ask again). With
    `retry_after_s` the origin wants no more questions for so long, but those of clients with a credential of their own.
    """

    def __init__(self, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class BlobFailed(LayercastError):
    """The swarm cannot bring the bytes this client waits for: continue from upstream at the byte reached."""


class DigestMismatch(BlobFailed):
    """The origin's own content does not match the digest: end the response short, never send the rest."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The origin allows this client to read a blob, of `size_bytes`, that it does not give to anyone.

    `caller` has the client's credential: the blob may be asked for with it as long as the client waits. Not `proven`:
    by the word of a manifest alone, see BlobWanted.
    """

    size_bytes: int
    proven: bool
    caller: Caller = field(repr=False)


class OpenedBlob(Protocol):
    """A blob a client is reading. Lives on the event loop; close() it in every case."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def handle(self) -> BlobHandle:
        """Pinned; the file to send from."""

    @property
    def stored(self) -> bool:
        """The whole blob is here: it is sent from the store, and nothing of it is waited for."""

    @property
    def wrong(self) -> bool:
        """What this client was sent came of content that does not match: it gets no further byte."""

    def begin(self, offset: int) -> None:
        """From here on bytes are sent in order; those before were of another range."""

    def available(self, offset: int) -> int:
        """What wait_available() gives now; `offset` when that would have to wait, or raise."""

    async def wait_available(self, offset: int) -> int:
        """The end (exclusive) of the bytes that may be sent from `offset` on; always above it.

        Until the digest has passed here, the last piece (at least 64 KiB) is withheld from who reads the whole. A piece
        that was not checked lately is read first, and fetched again if it has rotted; before the last bytes it is
        looked whether what was sent still stands. Where all is checked every time, that is left to who sends it
        (BlobHandle.read_checked). Says at the same time that the client waits for this offset. Raises BlobFailed or
        DigestMismatch.
        """

    def close(self) -> None:
        """The client is served or gone. The download goes on: it belongs to the swarm. Idempotent."""


class BlobProvider(Protocol):
    """One a node."""

    async def open(
        self, digest: Digest, source: Source, allowed: Allowed | None = None, ranges: tuple[ByteRange, ...] = ()
    ) -> OpenedBlob:
        """Returns once the size is known and the origin is known to give this blob to anyone, or to this client.

        With `ranges` the client reads nothing else, and they come before all others. Raises NotShared.
        """

    def known_size(self, digest: Digest, source: Source) -> int | None:
        """The size, when the blob is already known to be public at that very source and its size is known."""
