"""What members say of pieces that the supernode cannot check yet: whom to ask for one, and which hash to hold it to.

Nothing of it is signed, or saved. Whose word counts is decided in offers and message_handler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proto.pieces import mask_of

if TYPE_CHECKING:
    from peer.transport.base import PieceSource
    from proto.ids import PeerId, PeerName


@dataclass(frozen=True, slots=True)
class Offer:
    """A member that says it holds a piece: a hint where to fetch it, and no more until the digest has passed here.

    `claim`: the hash that the piece is held to.
    """

    peer: PeerId
    source: PieceSource
    claim: bytes = b""


@dataclass(slots=True)
class Claim:
    """A piece's hash by the word of the member that was elected to fetch it. Who has the piece by it (`holders`) is a
    source of it. It is never signed, nor saved, and ends once the piece is known here.
    """

    author: PeerId
    piece_hash: bytes
    holders: set[PeerName]


@dataclass(slots=True)
class Claims:
    """What goes from member to member of one swarm by the word of one."""

    _by_piece: dict[int, Claim] = field(default_factory=dict)
    # The pieces (mask), and whether there ever were any.
    pieces: int = 0
    ever: bool = False

    def of(self, piece: int) -> Claim | None:
        """The claim that counts for this piece."""
        return self._by_piece.get(piece)

    def make(self, member: PeerName, author: PeerId, piece: int, piece_hash: bytes, *, anew: bool) -> None:
        """The member has the piece from the origin. `anew`: no earlier word counts any more."""
        claim = self._by_piece.get(piece)
        if claim is None or anew:
            claim = self._by_piece[piece] = Claim(author, piece_hash, set())
        self.pieces |= 1 << piece
        self.ever = True
        if claim.piece_hash == piece_hash:
            claim.holders.add(member)

    def passed_on(self, member: PeerName, piece: int, piece_hash: bytes) -> None:
        """A lease by this word brought the piece to the member."""
        claim = self._by_piece.get(piece)
        if claim is not None and claim.piece_hash == piece_hash:
            claim.holders.add(member)

    def held_by(self, member: PeerName) -> int:
        """The pieces (mask) that it has by somebody's word."""
        return mask_of(piece for piece, claim in self._by_piece.items() if member in claim.holders)

    def authors(self) -> set[PeerId]:
        """Whose word counts for a piece now."""
        return {claim.author for claim in self._by_piece.values()}

    def end(self, piece: int) -> Claim | None:
        """The piece is known here."""
        self.pieces &= ~(1 << piece)
        return self._by_piece.pop(piece, None)

    def clear(self) -> None:
        """The blob was voided."""
        self._by_piece.clear()
        self.pieces = 0
