"""Blobs that are no torrents any more, until libtorrent has let go of their files; then the pin and the waiters go.

Part of peer.torrent.swarms, whose thread calls everything here. Which blob is left, and whether it is joined
again after that, is decided there.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.torrent.blob import JoinedBlob
    from peer.torrent.session import TorrentSession
    from proto.ids import Digest

# After that the file is taken to be free, and the operator is told.
_LEAVE_MAX_S: Final = 5.0

log = logging.getLogger(__name__)


class Leaving:
    """See the module. Iterates over the blobs that are being left."""

    def __init__(self, session: TorrentSession) -> None:
        self._session = session
        self._leaving: dict[Digest, JoinedBlob] = {}

    def __iter__(self) -> Iterator[JoinedBlob]:
        return iter(self._leaving.values())

    def of(self, digest: Digest) -> JoinedBlob | None:
        """The blob while it is being left."""
        return self._leaving.get(digest)

    def begin(self, torrent: JoinedBlob) -> None:
        """Ask libtorrent to let go; `left_s` is when."""
        self._leaving[torrent.digest] = torrent
        # It says so when its peers are gone, all is written and the file is closed; only then is it removed.
        torrent.handle.pause()

    def due(self, now: float) -> list[JoinedBlob]:
        """Those that can be ended: let go of, or waited for long enough."""
        return [
            torrent
            for torrent in self._leaving.values()
            if not torrent.adopting and (torrent.paused or now - torrent.left_s > _LEAVE_MAX_S)
        ]

    def end(self, torrent: JoinedBlob) -> bool:
        """Remove it and tell who waits; False when libtorrent did not let go in time."""
        free = torrent.paused
        del self._leaving[torrent.digest]
        self._session.remove(torrent.handle)
        if not free:
            # Its descriptor stays open: libtorrent knows the file by that number.
            log.error("torrent_not_left digest=%s: libtorrent did not let go of its file", torrent.digest.short)
        let_go(torrent, close=free)
        return free


def let_go(torrent: JoinedBlob, *, close: bool) -> None:
    """Give back its pin and, with `close`, its descriptor."""
    if close:
        os.close(torrent.descriptor)
    blob, torrent.blob = torrent.blob, None
    if blob is not None:
        blob.close()
    for waiter in torrent.waiters:
        waiter.set()
