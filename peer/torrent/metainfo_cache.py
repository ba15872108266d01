"""Torrents that the supernode told this node of, kept for when their blobs are joined. Safe to use from any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import libtorrent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.ids import Digest
    from proto.pieces import PieceLayout

# Metainfo is 32 bytes a piece; these are a node's blobs of some weeks.
_TORRENTS_MAX: Final = 4096
# More connections serve nobody.
_PEERS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class KnownTorrent:
    """A blob's cut, its metainfo, and whom to connect to (HOST:PORT)."""

    layout: PieceLayout
    metainfo: bytes
    peers: tuple[str, ...] = ()


class MetainfoCache:
    """The torrent that was told longest ago is dropped first."""

    def __init__(self) -> None:
        self._torrents: OrderedDict[Digest, KnownTorrent] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, digest: Digest, layout: PieceLayout, metainfo: bytes) -> bool:
        """Remember a torrent; False, and nothing is remembered, if it is not of this blob in this cut."""
        if not _is_of(metainfo, digest, layout):
            return False
        with self._lock:
            known = self._torrents.pop(digest, None)
            peers = known.peers if known is not None else ()
            self._torrents[digest] = KnownTorrent(layout, metainfo, peers)
            while len(self._torrents) > _TORRENTS_MAX:
                self._torrents.popitem(last=False)
        return True

    def get(self, digest: Digest) -> KnownTorrent | None:
        """The blob's torrent, if it was told."""
        with self._lock:
            return self._torrents.get(digest)

    def forget(self, digest: Digest) -> None:
        """The blob was something else."""
        with self._lock:
            self._torrents.pop(digest, None)

    def add_peers(self, digest: Digest, addresses: Iterable[str]) -> None:
        """Others that take part in a known torrent."""
        with self._lock:
            known = self._torrents.get(digest)
            if known is not None:
                self._torrents[digest] = replace(known, peers=(*known.peers, *addresses)[-_PEERS_MAX:])


def _is_of(metainfo: bytes, digest: Digest, layout: PieceLayout) -> bool:
    """Whether this is a v2 torrent of exactly one file, which has the blob's name, size and cut."""
    try:
        info = libtorrent.load_torrent_buffer(metainfo).ti
    except RuntimeError:
        return False
    if info is None or not info.info_hashes().has_v2() or info.info_hashes().has_v1():
        return False
    files = info.layout()
    pad = libtorrent.file_storage.flag_pad_file
    real = [index for index in range(files.num_files()) if not files.file_flags(index) & pad]
    return (
        real == [0]
        and (info.name(), files.file_size(0)) == (digest.hex, layout.size_bytes)
        and (info.piece_length(), info.num_pieces()) == (layout.piece_size_bytes, layout.count)
    )
