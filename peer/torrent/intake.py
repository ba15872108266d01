"""Pieces that libtorrent has verified, on their way into the store: flushed, checked once more, held, told of.

Part of peer.torrent.swarms: everything here is called by its thread, but for the check itself.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from proto.errors import LocalError, PieceCorrupt
from proto.wire.messages import FetchReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobHandle
    from peer.torrent.blob import JoinedBlob
    from proto.ids import Digest

_ADOPTERS: Final = 2
# A block may still be on its way to the file when its piece is announced: looked at again, later each time.
_ADOPT_AGAIN_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0)

log = logging.getLogger(__name__)


class PieceIntake:
    """`do` has something run by the torrent thread. `failed` is told of what cannot be stored, and why."""

    def __init__(
        self,
        do: Callable[[Callable[[], object]], None],
        on_piece: Callable[[Digest, int, int], None],
        failed: Callable[[JoinedBlob, str], None],
    ) -> None:
        self._do = do
        self._on_piece = on_piece
        self._failed = failed
        self.threads: Final = ThreadPoolExecutor(_ADOPTERS, thread_name_prefix="torrent-adopt")
        # (when, torrent, piece, attempts so far)
        self._again: list[tuple[float, JoinedBlob, int, int]] = []

    def close(self) -> None:
        """Wait for what is under way."""
        self.threads.shutdown(wait=True, cancel_futures=True)

    def next_due_s(self, otherwise_s: float) -> float:
        """Seconds until look_again() has something to do."""
        now = time.monotonic()
        return max(0.0, min((entry[0] - now for entry in self._again), default=otherwise_s))

    def look_again(self) -> None:
        """Take up what did not match before its last block was written."""
        now = time.monotonic()
        due = [entry for entry in self._again if entry[0] <= now]
        self._again = [entry for entry in self._again if entry[0] > now]
        for _, torrent, piece, attempts in due:
            self.adopt(torrent, piece, attempts)

    def forget(self, torrent: JoinedBlob) -> None:
        """It was left."""
        self._again = [entry for entry in self._again if entry[1] is not torrent]

    def verified(self, torrent: JoinedBlob, piece: int) -> None:
        """libtorrent says that the piece is right; its last blocks may not be in the file yet."""
        if torrent.blob is None or torrent.blob.held >> piece & 1 or torrent.left_s:
            return
        torrent.verified.add(piece)
        # It would wait for seconds else, in case another block comes to be written beside it.
        torrent.handle.flush_cache()

    def flushed(self, torrent: JoinedBlob) -> None:
        """What was verified is in the file."""
        for piece in sorted(torrent.verified - torrent.adopting):
            self.adopt(torrent, piece)

    def adopt(self, torrent: JoinedBlob, piece: int, attempts: int = 0) -> None:
        """Have it checked and held, if anybody wants it."""
        if torrent.blob is None or torrent.left_s or piece in torrent.adopting:
            return
        if not torrent.whole and not any(want.piece == piece for want in torrent.wants):
            return
        torrent.adopting.add(piece)
        self.threads.submit(self._adopt_now, torrent, torrent.blob, piece, attempts)

    def _adopt_now(self, torrent: JoinedBlob, blob: BlobHandle, piece: int, attempts: int) -> None:
        """In an adopter's thread."""
        fresh, reason, message = False, "", ""
        try:
            fresh = blob.adopt(piece)
        except PieceCorrupt as error:
            reason, message = FetchReason.CORRUPT, str(error)
        except LocalError as error:
            reason, message = FetchReason.LOCAL, str(error)
        except Exception:
            log.exception("torrent_failed digest=%s", torrent.digest.short)
            reason, message = FetchReason.LOCAL, "internal error while storing a piece; see the log"
        self._do(lambda: self._adopted(torrent, piece, attempts, fresh, reason, message))

    def _adopted(self, torrent: JoinedBlob, piece: int, attempts: int, fresh: bool, reason: str, message: str) -> None:
        torrent.adopting.discard(piece)
        if torrent.left_s:
            return
        if reason == FetchReason.CORRUPT and attempts < len(_ADOPT_AGAIN_S):
            self._again.append((time.monotonic() + _ADOPT_AGAIN_S[attempts], torrent, piece, attempts + 1))
            return
        if reason:
            torrent.end_wants(reason, message, piece)
            if torrent.whole:
                self._failed(torrent, message)
            return
        torrent.verified.discard(piece)
        torrent.end_wants("", "", piece)
        if fresh and torrent.whole:
            self._on_piece(torrent.digest, piece, torrent.layout.length(piece))
