"""Messages waiting for one peer, with their weight; and how a batch becomes frames. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.wire import codec
from proto.wire.messages import Holders, InlineBlob, Message, PieceHashes, SwarmOpened, TorrentOpened, TorrentPeers

if TYPE_CHECKING:
    from collections.abc import Iterator

# A frame is closed beyond these; well below the codec's limits, so that one large message more still fits.
FRAME_WEIGHT_BYTES: Final = 1024 * 1024
FRAME_MESSAGES: Final = 4096


def weight(message: Message) -> int:
    """About how many bytes the message takes on the wire and in memory; never less than on the wire."""
    if isinstance(message, PieceHashes):
        return 160 + len(message.hashes)
    if isinstance(message, InlineBlob):
        return 64 + len(message.content)
    if isinstance(message, SwarmOpened):
        return 512
    if isinstance(message, TorrentOpened):
        return 64 + len(message.metainfo)
    if isinstance(message, Holders | TorrentPeers):
        return 64 + 9 * len(message.nodes)
    return 128


class Outbox:
    """What waits for one session. `bytes_waiting` counts until taken."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.bytes_waiting = 0

    def add(self, message: Message) -> None:
        """Append in order."""
        self._messages.append(message)
        self.bytes_waiting += weight(message)

    def take(self) -> list[Message]:
        """Everything, in order."""
        taken, self._messages = self._messages, []
        self.bytes_waiting = 0
        return taken


def frames(batch: list[Message]) -> Iterator[bytes]:
    """The batch as frames within the codec's limits, in order."""
    part: list[Message] = []
    part_bytes = 0
    for message in batch:
        part.append(message)
        part_bytes += weight(message)
        if part_bytes >= FRAME_WEIGHT_BYTES or len(part) >= FRAME_MESSAGES:
            yield codec.encode(part)
            part, part_bytes = [], 0
    if part:
        yield codec.encode(part)
