"""What the supernode puts its key to: tickets, and the hashes of pieces. Safe from any thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from peer.store.base import SignedHashes
from peer.transport.wire import RUN_WITH_PIECE_MAX
from proto.wire.tickets import TICKET_LIFE_S, issue_ticket, sign_hashes

if TYPE_CHECKING:
    from peer.store.base import BlobHandle
    from proto.ids import Digest, PeerId
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity


class IdentitySigner:
    """Implements supernode.control.piece_hashes.Signer."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def peer(self) -> PeerId:
        return self._identity.peer

    def ticket(self, digest: Digest, peer: PeerId) -> bytes:
        return issue_ticket(self._identity, digest, peer, time.time() + TICKET_LIFE_S)

    def sign_hashes(self, digest: Digest, layout: PieceLayout, first: int, hashes: bytes) -> bytes:
        return sign_hashes(self._identity, digest, layout, first, hashes)

    def sign_held(self, handle: BlobHandle, piece: int) -> SignedHashes | None:
        """The supernode's word for a piece that its own store holds, for a peer that fetches it. Raises LocalError.

        For its neighbours, too, that are held: to check a signature takes a node longer than to hash a piece.
        """
        piece_hash = handle.hash_of(piece)
        if piece_hash is None:
            return None
        held, start = handle.held, piece - piece % RUN_WITH_PIECE_MAX
        first, last = piece, piece
        while first > start and held >> (first - 1) & 1:
            first -= 1
        while last + 1 < start + RUN_WITH_PIECE_MAX and held >> (last + 1) & 1:
            last += 1
        found = [handle.hash_of(each) for each in range(first, last + 1)]
        hashes = [each for each in found if each is not None]
        if len(hashes) < len(found):
            first, hashes = piece, [piece_hash]
        joined = b"".join(hashes)
        return SignedHashes(first, joined, self.sign_hashes(handle.digest, handle.layout, first, joined))
