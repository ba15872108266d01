"""What this node was told of blobs' torrents, remembered until one is joined, or joined again. From any thread.

It takes part in nothing: peer.torrent.swarms does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.torrent.session import fits

if TYPE_CHECKING:
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# Metainfo is 32 bytes a piece; a node's blobs of some weeks.
_TOLD_MAX: Final = 4096
# Remembered for when the blob is joined, or joined again; more connections serve nobody.
_PEERS_KEPT: Final = 100


@dataclass(slots=True)
class ToldBlob:
    """What was told of a blob's torrent: its cut, its metainfo, whom to connect to (HOST:PORT), which pieces first."""

    layout: PieceLayout
    metainfo: bytes
    peers: list[str]
    first: range


class ToldBook:
    """See the module. What was told longest ago goes first."""

    def __init__(self) -> None:
        self._told: OrderedDict[Digest, ToldBlob] = OrderedDict()
        self._lock = threading.Lock()

    def offer(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> bool:
        """False, and nothing remembered, if the metainfo is not of this blob and cut."""
        if not fits(metainfo, digest.hex, layout.size_bytes, layout.piece_size_bytes, layout.count):
            return False
        with self._lock:
            known = self._told.get(digest)
            if known is not None:
                self._told[digest] = ToldBlob(layout, metainfo, known.peers, known.first)
            else:
                self._told[digest] = ToldBlob(layout, metainfo, [], range(0))
            self._told.move_to_end(digest)
            while len(self._told) > _TOLD_MAX:
                self._told.popitem(last=False)
        return True

    def of(self, digest: Digest) -> ToldBlob | None:
        """What is remembered of the blob."""
        with self._lock:
            return self._told.get(digest)

    def peers(self, digest: Digest) -> list[str]:
        """Whom to connect to for it, HOST:PORT."""
        told = self.of(digest)
        return list(told.peers) if told is not None else []

    def forget(self, digest: Digest) -> None:
        """The blob was something else."""
        with self._lock:
            self._told.pop(digest, None)

    def add_peers(self, digest: Digest, addresses: list[str], first: range) -> None:
        """Others (HOST:PORT) that take part in a torrent we were told of; `first`, if any: pieces to fetch first."""
        with self._lock:
            told = self._told.get(digest)
            if told is not None:
                told.peers = [*told.peers, *addresses][-_PEERS_KEPT:]
                told.first = first or told.first
