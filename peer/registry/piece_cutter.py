"""Cuts an origin's bytes into pieces and writes them to the store: the sink of a fetch from an origin.

Several threads write at the same time, each in order within its own window, no two of them within one piece. The
store hashes each piece as it is written, and the blob's digest with the pieces that are next in order; this cuts
the bytes at the pieces' borders and says when a piece is whole. It fetches nothing and schedules nothing.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from proto.errors import PieceCorrupt, UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.store.base import BlobHandle, Chunk, PieceWriter


class PieceCutter:
    """Writes into one blob, which the caller keeps open. close() it in the end, also after errors."""

    def __init__(self, handle: BlobHandle, on_piece: Callable[[int, bytes], None]) -> None:
        """`on_piece(piece, hash)` is called from the thread that wrote the piece's last byte, once it is held."""
        self._handle = handle
        self._layout = handle.layout
        self._on_piece = on_piece
        self._lock = threading.Lock()
        # The pieces that are begun: the writer, and the offset of the next byte.
        self._begun: dict[int, tuple[PieceWriter, int]] = {}
        self._closed = False

    def write(self, offset: int, view: Chunk) -> None:
        """The bytes at `offset`: where a piece begins, or where the last write of it ended.

        Raises UpstreamError (content) where a piece differs from the hash it is known by, StoreFull, LocalError.
        """
        while len(view):
            piece = self._layout.piece_at(offset)
            end = self._layout.offset(piece) + self._layout.length(piece)
            part = view[: end - offset]
            writer = self._writer(piece, offset)
            with _wrong_content():
                writer.write(part)
            offset += len(part)
            view = view[len(part) :]
            if offset < end:
                self._keep(piece, writer, offset)
            else:
                self._finish(piece, writer)

    def close(self) -> None:
        """Drop the pieces that are not complete. Nothing may be written after this. Idempotent."""
        with self._lock:
            self._closed = True
            begun, self._begun = self._begun, {}
        for writer, _ in begun.values():
            writer.abort()

    def _writer(self, piece: int, offset: int) -> PieceWriter:
        """The writer of a piece that is begun, or of a new one."""
        with self._lock:
            assert not self._closed
            begun = self._begun.get(piece)
        if begun is not None:
            writer, expected = begun
            assert offset == expected, f"piece {piece}: bytes at {offset} where {expected} was next"
            return writer
        assert offset == self._layout.offset(piece), f"piece {piece}: first bytes at {offset}"
        writer = self._handle.writer(piece, from_origin=True)
        self._keep(piece, writer, offset)
        return writer

    def _keep(self, piece: int, writer: PieceWriter, offset: int) -> None:
        with self._lock:
            self._begun[piece] = (writer, offset)

    def _finish(self, piece: int, writer: PieceWriter) -> None:
        with self._lock:
            del self._begun[piece]
        with _wrong_content():
            piece_hash = writer.finish()
        self._on_piece(piece, piece_hash)


@contextlib.contextmanager
def _wrong_content() -> Iterator[None]:
    try:
        yield
    except PieceCorrupt as error:
        raise UpstreamError(f"origin sent other bytes than before: {error}", UpstreamKind.CONTENT) from error
