"""A blob sent from memory, piece by piece, where every byte is to be checked each time it is sent (`verify_after` 0).

sendfile puts the file's own pages into the socket: who writes to the file before the client has read them changes what
was checked and sent. Here the very bytes that were compared with the piece's hash are the ones that leave. It waits for
no piece and decides nothing about what may be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.proxy.client_socket import ClientSocket
    from peer.store.base import BlobHandle

# What waits in memory for clients that are slow, sixteen of the largest pieces. Beyond it a piece is read and checked
# again for what its client takes next.
KEPT_BYTES_MAX: Final = 256 * 1024 * 1024


class CheckedSending:
    """One a mirror. Lives on the event loop."""

    def __init__(self, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._kept_bytes = 0

    async def send(
        self, client: ClientSocket, handle: BlobHandle, offset: int, end: int, sent: Callable[[int], None]
    ) -> None:
        """Send from `offset` on, to `end` or to the end of the piece; `sent` is called with the length of each part.

        Less, or nothing, where the piece is found rotten or memory is short: ask again from the byte reached.
        Raises ClientGone, LocalError.
        """
        if not await self._send_piece(client, handle, offset, end, sent):
            await client.writable()

    async def _send_piece(
        self, client: ClientSocket, handle: BlobHandle, offset: int, end: int, sent: Callable[[int], None]
    ) -> bool:
        """False when the client has to be waited for, and the piece cannot be kept so long."""
        piece = handle.layout.piece_at(offset)
        content = await client.run(handle.read_checked, piece)
        if content is None:
            return True
        start = handle.layout.offset(piece)
        rest, kept_bytes = content[offset - start : end - start], 0
        try:
            while rest:
                part = await client.run(client.send_some, rest)
                rest = rest[part:]
                if part:
                    sent(part)
                    continue
                if not kept_bytes:
                    if self._kept_bytes + len(content) > self._kept_bytes_max:
                        return False
                    kept_bytes = len(content)
                    self._kept_bytes += kept_bytes
                await client.writable()
        finally:
            self._kept_bytes -= kept_bytes
        return True
