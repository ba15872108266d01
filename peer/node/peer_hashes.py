"""Piece hashes as peers tell them: none is learnt that the supernode has not signed for the blob. Keeps nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from peer.downloader.contract import HashesConflict, HashesLearned
from peer.transport.wire import decode_hashes
from proto.errors import FrameInvalid, PieceCorrupt, RemoteError, TicketInvalid
from proto.wire.tickets import check_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event
    from peer.store.base import BlobHandle, SignedHashes
    from peer.transport.base import PieceSource, Transport

logger = logging.getLogger(__name__)


def ask(
    transport: Transport, source: PieceSource, handle: BlobHandle, ticket: bytes, key: bytes, timeout_s: float
) -> int:
    """Ask a peer for the hashes it has, and learn those that are missing here: which (mask). `key`: the supernode's."""
    try:
        layout, signed_runs = decode_hashes(transport.hashes(source, handle.digest, ticket, timeout_s))
    except RemoteError as error:
        logger.debug("hashes_not_told digest=%s %s", handle.digest.short, error)
        return 0
    learned = 0
    if layout != handle.layout:
        return 0
    for signed in signed_runs:
        if _all_known(handle, signed):
            continue
        try:
            _check(key, handle, signed)
            handle.learn_hashes(signed)
        except (TicketInvalid, PieceCorrupt) as error:
            logger.warning("hashes_ignored digest=%s %s", handle.digest.short, error)
            continue
        learned |= signed.pieces
    return learned


def learn_with_piece(handle: BlobHandle, key: bytes, post: Callable[[Event], None], signed: SignedHashes) -> None:
    """Learn a run that came with a piece; see PieceFetch.learn."""
    if signed.first + signed.count > handle.layout.count:
        raise FrameInvalid(f"a run of {signed.count} hashes from piece {signed.first} does not fit the blob")
    _check(key, handle, signed)
    try:
        handle.learn_hashes(signed)
    except PieceCorrupt as error:
        # The supernode's word against pieces that are here: whoever passed it on did well.
        logger.warning("hashes_conflict %s", error)
        post(HashesConflict(handle.digest))
        return
    post(HashesLearned(handle.digest, signed.pieces))


def _all_known(handle: BlobHandle, signed: SignedHashes) -> bool:
    """Nothing is to be learnt from it: a look is cheaper than a signature."""
    return all(handle.hash_of(signed.first + piece) is not None for piece in range(signed.count))


def _check(key: bytes, handle: BlobHandle, signed: SignedHashes) -> None:
    """Raises TicketInvalid unless the supernode signed these hashes for this blob."""
    check_hashes(key, handle.digest, handle.layout, signed.first, signed.hashes, signed.signature)
