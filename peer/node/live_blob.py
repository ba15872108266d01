"""Blobs in use on this node: the open file, who reads, what they may be sent, and why they are not sent more.

Lives on the event loop. It decides nothing but how much of a blob may leave before its digest was checked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.node.blobs import BlobFailed, DigestMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle, SignedHashes
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# The end that is withheld until the digest passed is at least this long.
WITHHELD_BYTES_MIN: Final = 64 * 1024


@dataclass(slots=True, eq=False)
class LiveBlob:
    """What the shell keeps of a blob the downloader knows; `handle` is there while it is open in the store."""

    digest: Digest
    handle: BlobHandle | None = None
    layout: PieceLayout | None = None
    ticket: bytes = b""
    # Checked signed hashes that wait for the store to be open.
    early_hashes: list[SignedHashes] = field(default_factory=list)
    readers: dict[int, BlobReader] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Readers look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class BlobReader:
    """See peer.node.blobs.OpenedBlob. `waits_for` tells which piece is waited for, `closed` that the client is done."""

    def __init__(
        self,
        blob: LiveBlob,
        handle: BlobHandle,
        waits_for: Callable[[int], None],
        closed: Callable[[], None],
    ) -> None:
        self._blob = blob
        self._handle = handle
        self._waits_for = waits_for
        self._closed: Callable[[], None] | None = closed
        self._piece = -1
        self.failure: BlobFailed | None = None
        layout = handle.layout
        last_bytes = layout.length(layout.count - 1) if layout.count else 0
        self._withheld_from = max(0, layout.size_bytes - max(last_bytes, WITHHELD_BYTES_MIN))

    @property
    def size_bytes(self) -> int:
        """See OpenedBlob."""
        return self._handle.layout.size_bytes

    @property
    def handle(self) -> BlobHandle:
        """See OpenedBlob."""
        return self._handle

    @property
    def complete(self) -> bool:
        """See OpenedBlob."""
        return (self._handle.matched or self._handle.complete) and not self.wrong

    @property
    def wrong(self) -> bool:
        """See OpenedBlob."""
        return isinstance(self.failure, DigestMismatch)

    async def wait_available(self, offset: int) -> int:
        """See OpenedBlob."""
        while True:
            if self.complete:
                return self.size_bytes
            if self.failure is not None:
                raise self.failure
            end = min(self._handle.available_from(offset), self._withheld_from)
            changed = self._blob.changed
            if end > offset:
                return end
            self._tell(offset)
            await changed.wait()

    def _tell(self, offset: int) -> None:
        layout = self._handle.layout
        if layout.count:
            piece = layout.piece_at(min(max(0, offset), layout.size_bytes - 1))
            if piece != self._piece:
                self._piece = piece
                self._waits_for(piece)

    def fail(self, message: str, *, mismatch: bool) -> None:
        """No more comes for this reader. That the content is wrong stands, whatever replaces it in the store."""
        if mismatch:
            self.failure = DigestMismatch(message)
        elif self.failure is None:
            self.failure = BlobFailed(message)

    def close(self) -> None:
        """See OpenedBlob."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
