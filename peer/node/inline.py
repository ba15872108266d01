"""Contents of tiny blobs that came inside messages, until the downloader says where to put them.

InlineContents lives on the event loop and touches no file. Content that is here when its blob is opened is stored in
the same turn of a thread: a turn of its own would cost more than the work. What the downloader asks for after that has
been done already, or is being done, and the outcome waits here for it. Nothing is decided here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import FetchEnded, PieceArrived
from proto.errors import LocalError, PieceCorrupt
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event
    from peer.store.base import BlobHandle
    from proto.ids import Digest

logger = logging.getLogger(__name__)

# Contents that the downloader was not yet asked about; each is at most a frame.
INLINE_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Landed:
    """How storing ended: a FetchReason, empty on success. `whole`: the digest passed too, and the disk has all."""

    reason: str
    message: str
    whole: bool


@dataclass(slots=True)
class _Landing:
    """A lease whose content is being stored. `fetch`: the downloader's number for it, 0 until it asked."""

    digest: Digest
    fetch: int = 0
    declined: bool = False


class InlineContents:
    """By lease. `post` queues an event for the downloader."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._contents: dict[int, tuple[Digest, bytes]] = {}
        self._landing: dict[int, _Landing] = {}
        # Stored, and not asked for yet.
        self._landed: dict[int, tuple[Digest, Landed]] = {}

    def __len__(self) -> int:
        return len(self._contents) + len(self._landing) + len(self._landed)

    def put(self, lease: int, digest: Digest, content: bytes) -> None:
        """It came. Beyond INLINE_MAX it is dropped: its lease then fails."""
        if len(self._contents) < INLINE_MAX:
            self._contents[lease] = (digest, content)

    def begin(self, digest: Digest) -> tuple[int, bytes] | None:
        """The blob is about to be opened: the lease and content to store with it, if they are here."""
        for lease, (whose, content) in self._contents.items():
            if whose == digest:
                del self._contents[lease]
                self._landing[lease] = _Landing(digest)
                return lease, content
        return None

    def is_landing(self, digest: Digest) -> bool:
        """Whether content of it was given to a thread, and the downloader does not know yet."""
        return any(landing.digest == digest for landing in self._landing.values()) or any(
            whose == digest for whose, _ in self._landed.values()
        )

    def wanted(self, lease: int, fetch: int) -> bytes | None:
        """The downloader wants it stored: the content, or None where it was given to a thread before."""
        if lease in self._landing:
            self._landing[lease].fetch = fetch
            return None
        if lease in self._landed:
            self._end(fetch, self._landed.pop(lease)[1])
            return None
        return self._contents.pop(lease, (None, b""))[1]

    def landed(self, lease: int, outcome: Landed) -> None:
        """A thread has stored it, or could not."""
        landing = self._landing.pop(lease)
        if landing.fetch:
            self._end(landing.fetch, outcome)
        elif landing.declined:
            self._tell_of_unasked(landing.digest, outcome)
        else:
            self._landed[lease] = (landing.digest, outcome)

    def decline(self, lease: int) -> None:
        """The lease came to nothing, or has ended. What is stored all the same, the downloader is told of."""
        self._contents.pop(lease, None)
        if lease in self._landing:
            self._landing[lease].declined = True
        elif lease in self._landed:
            self._tell_of_unasked(*self._landed.pop(lease))

    def clear(self) -> None:
        """The session is over, and its leases."""
        self._contents.clear()
        for lease in [*self._landing, *self._landed]:
            self.decline(lease)

    def _end(self, fetch: int, outcome: Landed) -> None:
        self._post(FetchEnded(fetch, outcome.reason, 0.0, outcome.message, outcome.whole))

    def _tell_of_unasked(self, digest: Digest, outcome: Landed) -> None:
        if not outcome.reason:
            self._post(PieceArrived(digest, 0))


def store_piece(handle: BlobHandle, content: bytes) -> tuple[str, str]:
    """Put a one-piece blob's content into the store: (reason, message), empty on success. Blocking."""
    try:
        if len(content) != handle.layout.size_bytes:
            return FetchReason.PROTOCOL, ""
        writer = handle.writer(0, from_origin=handle.hash_of(0) is None)
        try:
            writer.write(memoryview(content))
            writer.finish()
        finally:
            writer.abort()
    except PieceCorrupt:
        return FetchReason.CORRUPT, ""
    except LocalError as error:
        return FetchReason.LOCAL, str(error)
    except Exception:
        logger.exception("inline_blob_failed digest=%s", handle.digest.short)
        return FetchReason.LOCAL, "internal error while storing a blob; see the log"
    return "", ""
