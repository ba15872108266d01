"""Pieces that libtorrent has verified, on their way into the store: flushed, checked by BLAKE3, held, reported.

Part of peer.torrent.swarms: its thread calls everything here, except the check itself, which runs in threads.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from proto.errors import LocalError, PieceCorrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle
    from peer.torrent.joined_blob import JoinedBlob

_THREADS: Final = 2
# A block may still be on its way to the file when its piece is announced: the piece is checked again, later each time.
_RETRY_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0)

log = logging.getLogger(__name__)


class PieceAdoption:
    """`run` has something done by the torrent thread. `held` and `failed` are told how each piece ended."""

    def __init__(
        self,
        run: Callable[[Callable[[], object]], None],
        held: Callable[[JoinedBlob, int], None],
        failed: Callable[[JoinedBlob, str], None],
    ) -> None:
        self._run = run
        self._held = held
        self._failed = failed
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="torrent-adopt")
        # (when, torrent, piece, attempts so far)
        self._retries: list[tuple[float, JoinedBlob, int, int]] = []

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def next_due_s(self, otherwise_s: float) -> float:
        """Seconds until retry_due() has something to do."""
        now = time.monotonic()
        return max(0.0, min((entry[0] - now for entry in self._retries), default=otherwise_s))

    def retry_due(self) -> None:
        """Check again what did not match before its last block was written."""
        now = time.monotonic()
        due = [entry for entry in self._retries if entry[0] <= now]
        self._retries = [entry for entry in self._retries if entry[0] > now]
        for _, torrent, piece, attempts in due:
            self._begin(torrent, piece, attempts)

    def verified(self, torrent: JoinedBlob, piece: int) -> None:
        """libtorrent says that the piece is right; its last blocks may not be in the file yet."""
        if torrent.lacks(piece):
            torrent.verified.add(piece)
            # Without this it would wait seconds for another block to write beside it.
            torrent.handle.flush_cache()

    def flushed(self, torrent: JoinedBlob) -> None:
        """What was verified is in the file."""
        for piece in sorted(torrent.verified - torrent.adopting):
            self._begin(torrent, piece, 0)

    def _begin(self, torrent: JoinedBlob, piece: int, attempts: int) -> None:
        if torrent.pin is not None and not torrent.left_s and piece not in torrent.adopting:
            torrent.adopting.add(piece)
            self._threads.submit(self._adopt, torrent, torrent.pin, piece, attempts)

    def _adopt(self, torrent: JoinedBlob, blob: BlobHandle, piece: int, attempts: int) -> None:
        """In a thread of ours."""
        fresh, corrupt, trouble = False, False, ""
        try:
            fresh = blob.adopt(piece)
        except PieceCorrupt as error:
            corrupt, trouble = True, str(error)
        except LocalError as error:
            trouble = str(error)
        except Exception:
            log.exception("torrent_failed digest=%s", torrent.digest.short)
            trouble = "internal error while storing a piece; see the log"
        retry = corrupt and attempts < len(_RETRY_S)
        self._run(lambda: self._adopted(torrent, piece, fresh, trouble, attempts if retry else -1))

    def _adopted(self, torrent: JoinedBlob, piece: int, fresh: bool, trouble: str, retries: int) -> None:
        torrent.adopting.discard(piece)
        if torrent.left_s:
            return
        if retries >= 0:
            self._retries.append((time.monotonic() + _RETRY_S[retries], torrent, piece, retries + 1))
        elif trouble:
            self._failed(torrent, trouble)
        else:
            torrent.verified.discard(piece)
            if fresh:
                self._held(torrent, piece)
