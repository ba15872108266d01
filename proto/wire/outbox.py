"""Messages waiting for the other side of a session, with their weight; and how a batch becomes frames. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.wire import codec, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proto.wire.messages import Message

# A frame is closed beyond these; well below the codec's limits, so that one large message more still fits.
FRAME_WEIGHT_BYTES: Final = 1024 * 1024
FRAME_MESSAGES: Final = 4096


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


def weight(message: Message) -> int:
    """About how many bytes the message takes on the wire and in memory; never less than on the wire."""
    if isinstance(message, messages.Announce):
        return 160 + 64 * len(message.sources) + len(message.held) + len(message.hashes)
    if isinstance(message, messages.PieceHashes):
        return 160 + len(message.hashes)
    if isinstance(message, messages.InlineBlob):
        return 64 + len(message.content)
    if isinstance(message, messages.SwarmOpened):
        return 512
    if isinstance(message, messages.TorrentOpened):
        return 64 + len(message.metainfo)
    if isinstance(message, messages.Holders | messages.TorrentPeers):
        return 64 + 9 * len(message.nodes)
    return 128
