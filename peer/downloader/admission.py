"""Letting clients in and sending them to their origin: the steps that several rules share.

A client is answered once it may read and the blob is open in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.blob import StoreState
from peer.downloader.contract import AnswerReader, RefuseReader
from proto.errors import FrameInvalid
from proto.pieces import PieceLayout

if TYPE_CHECKING:
    from peer.downloader.blob import Blob, Reader
    from peer.downloader.state import State
    from proto.wire.messages import Source


def admit(state: State, blob: Blob, source: Source) -> None:
    """The source is public and the size known: its readers wait for the store alone, or for nothing."""
    for reader in blob.readers.values():
        if reader.source == source and not reader.failed:
            reader.admitted = True
    want(state, blob)
    reading = _is_reading(blob)
    if state.connected and blob.wanted and not blob.complete and not is_announced(blob):
        state.announce(blob, source)
    if reading:
        begin(state, blob)


def want(state: State, blob: Blob) -> None:
    """Whoever was let in wants what is missing."""
    if _is_reading(blob) and not blob.complete and not blob.wanted:
        blob.wanted = True
        blob.progress_at = state.now
    blob.whole = blob.wanted and (blob.whole or wants_whole(blob))
    admitted = [reader for reader in blob.readers.values() if reader.admitted and not reader.failed]
    blob.preheated = blob.wanted and (blob.preheated or any(reader.background for reader in admitted))
    blob.pulled = blob.wanted and (blob.pulled or any(not reader.background for reader in admitted))


def wants_whole(blob: Blob) -> bool:
    """Whether somebody who may read wants all of it."""
    return any(reader.admitted and not reader.failed and reader.whole for reader in blob.readers.values())


def is_announced(blob: Blob) -> bool:
    """Whether the supernode knows, or is about to say that it does, what of the blob is wanted here."""
    known = blob.announced_wanted and not (blob.announced_ranges and not blob.ranges_alone)
    known = known and not (blob.announced_background and not blob.background_alone)
    return known or bool(blob.unanswered)


def tell_wanted(state: State, blob: Blob) -> None:
    """The supernode answered: what clients want of the blob that came meanwhile is told now."""
    if blob.swarm and blob.wanted and not blob.complete and not is_announced(blob):
        state.announce(blob, None)


def begin(state: State, blob: Blob) -> None:
    """Open it in the store, and answer who was let in."""
    state.open_store(blob)
    answer_admitted(state, blob)


def _is_reading(blob: Blob) -> bool:
    return any(reader.admitted and not reader.failed for reader in blob.readers.values())


def answer_admitted(state: State, blob: Blob) -> None:
    """Whoever may read, may begin, once the blob is open."""
    if blob.store is not StoreState.OPEN:
        return
    for reader in blob.readers.values():
        if reader.admitted and not reader.answered and not reader.failed:
            reader.answered = True
            blob.progress_at = max(blob.progress_at, state.now)
            state.emit(AnswerReader(reader.reader))
            end_waiting(state, blob, reader)


def end_waiting(state: State, blob: Blob, reader: Reader) -> None:
    """Who reads ranges does not wait for more: not until nodes know how to go on without a supernode, nor for a whole
    blob. Its origin gives just them.
    """
    waits = blob.shared_whole or not (state.connected or blob.alone or not state.ever_connected)
    if waits and not (reader.whole or reader.failed) and reader.asked(blob.layout) & ~blob.held:
        state.fail_reader(blob, reader, "its ranges are the origin's to give now")


def refuse(state: State, blob: Blob, reader: Reader, reason: str, message: str, retry_after_s: float = 0.0) -> None:
    """The client goes to its origin. It stays known until the shell closes it."""
    if not reader.answered and not reader.failed:
        reader.failed = True
        state.note(blob, f"reader {reader.reader} refused: {reason}")
        state.emit(RefuseReader(reader.reader, reason, message, retry_after_s))


def refuse_unanswered(state: State, blob: Blob, reason: str, message: str) -> None:
    """All clients that wait for an answer go to their origins."""
    for reader in list(blob.readers.values()):
        refuse(state, blob, reader, reason, message)


def set_layout(state: State, blob: Blob, size_bytes: int, piece_size_bytes: int | None) -> bool:
    """Take the cut of a blob whose cut is unknown; False for one that contradicts ours, or is none at all."""
    try:
        layout = PieceLayout.of(size_bytes) if piece_size_bytes is None else PieceLayout(size_bytes, piece_size_bytes)
    except FrameInvalid:
        return False
    if blob.layout is None:
        blob.cut(layout)
        state.note(blob, f"{layout.size_bytes} bytes in {layout.count} pieces")
        return True
    if piece_size_bytes is None:
        return blob.layout.size_bytes == size_bytes
    return blob.layout == layout
