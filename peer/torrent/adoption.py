"""Pieces that libtorrent has verified, on their way into the store: flushed, checked by BLAKE3, held, reported.

Part of peer.torrent.swarms: its thread calls everything here, except the check itself, which runs in threads.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from proto.errors import LayercastError, PieceCorrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle
    from peer.torrent.joined_blob import JoinedBlob

_THREADS: Final = 2
# A block may still be on its way to the file when its piece is announced: the piece is checked again, later each time.
# A thread waits meanwhile: nearly always for the first of these times, and for all only where a piece is corrupt.
_RETRY_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0)

log = logging.getLogger(__name__)


class PieceAdoption:
    """`run` has something called by the torrent thread. `held` or `failed` is called at the end of each piece."""

    def __init__(
        self,
        run: Callable[..., None],
        held: Callable[[JoinedBlob, int], None],
        failed: Callable[[JoinedBlob, str], None],
    ) -> None:
        self._run = run
        self._held = held
        self._failed = failed
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="torrent-adopt")

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def verified(self, torrent: JoinedBlob, piece: int) -> None:
        """libtorrent says that the piece is right; its last blocks may not be in the file yet."""
        if torrent.lacks(piece):
            torrent.verified.add(piece)
            # Without this it would wait seconds for another block to write beside it.
            torrent.handle.flush_cache()

    def flushed(self, torrent: JoinedBlob) -> None:
        """What was verified is in the file."""
        for piece in sorted(torrent.verified - torrent.adopting):
            if torrent.pin is not None and not torrent.left_s:
                torrent.adopting.add(piece)
                self._threads.submit(self._adopt, torrent, torrent.pin, piece)

    def _adopt(self, torrent: JoinedBlob, blob: BlobHandle, piece: int) -> None:
        """In a thread of ours."""
        fresh, trouble = False, ""
        try:
            fresh = _adopted(torrent, blob, piece)
        except LayercastError as error:
            trouble = str(error)
        except Exception:
            log.exception("torrent_failed digest=%s", torrent.digest.short)
            trouble = "internal error while storing a piece; see the log"
        self._run(self._ended, torrent, piece, fresh, trouble)

    def _ended(self, torrent: JoinedBlob, piece: int, fresh: bool, trouble: str) -> None:
        torrent.adopting.discard(piece)
        if torrent.left_s:
            return
        if trouble:
            self._failed(torrent, trouble)
        else:
            torrent.verified.discard(piece)
            if fresh:
                self._held(torrent, piece)


def _adopted(torrent: JoinedBlob, blob: BlobHandle, piece: int) -> bool:
    """Whether the piece is held now and was not before. Raises PieceCorrupt and LocalError."""
    for pause_s in _RETRY_S:
        try:
            return blob.adopt(piece)
        except PieceCorrupt:
            if torrent.left_s:
                raise
            time.sleep(pause_s)
    return blob.adopt(piece)
