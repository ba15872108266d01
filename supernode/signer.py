"""What the supernode puts its key to: tickets, and the hashes of pieces. Safe from any thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from peer.store.base import SignedHashes
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
        """The supernode's word for a piece that its own store holds, for a peer that fetches it. Raises LocalError."""
        piece_hash = handle.hash_of(piece)
        if piece_hash is None:
            return None
        return SignedHashes(piece, piece_hash, self.sign_hashes(handle.digest, handle.layout, piece, piece_hash))
