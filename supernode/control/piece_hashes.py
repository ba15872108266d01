"""The piece hashes of one blob as the supernode knows them, and the signed runs in which they are passed on.

Plain data with one owner, the event loop. It stores nothing and checks no digest: whether the hashes are vouched for is
the swarm's business. Not to be confused with peer.store.hashes, which keeps a node's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from peer.store.base import SignedHashes
from proto.bounded_dict import BoundedDict
from proto.pieces import PieceLayout, runs

if TYPE_CHECKING:
    from proto.ids import Digest, PeerId

HASH_BYTES: Final = 32
# Nodes that were sent the same so far are sent the same run next. Those signed last are kept.
RUNS_MAX: Final = 128


class Signer(Protocol):
    """The supernode's key. Any thread."""

    @property
    def peer(self) -> PeerId:
        """Its public half, which is the seed's identity among the nodes."""

    def ticket(self, digest: Digest, peer: PeerId) -> bytes:
        """Permission for a peer to fetch the blob from others, good for ten minutes."""

    def sign_hashes(self, digest: Digest, layout: PieceLayout, first: int, hashes: bytes) -> bytes:
        """The signature over a run of piece hashes."""


class BlobHashes:
    """BLAKE3 hashes by piece. `known` is the mask of pieces whose hash is here."""

    def __init__(self, signer: Signer, digest: Digest, layout: PieceLayout) -> None:
        self._signer = signer
        self._digest = digest
        self._layout = layout
        self._hashes = bytearray(layout.count * HASH_BYTES)
        # By first and last piece.
        self._signed: BoundedDict[tuple[int, int], SignedHashes] = BoundedDict(RUNS_MAX)
        self.known = 0

    def learn(self, first: int, hashes: bytes) -> None:
        """Enter the hashes of pieces first, first+1, ...; what was known of them is replaced only if it is equal.

        Raises ValueError on a run outside the blob or one that contradicts what is known.
        """
        count = len(hashes) // HASH_BYTES
        if len(hashes) % HASH_BYTES or first < 0 or first + count > self._layout.count:
            raise ValueError(f"hashes of pieces {first}..{first + count - 1} do not fit the blob")
        if not self.agrees(first, hashes):
            raise ValueError("a piece has two different hashes")
        self._hashes[first * HASH_BYTES : first * HASH_BYTES + len(hashes)] = hashes
        self.known |= ((1 << count) - 1) << first

    def agrees(self, first: int, hashes: bytes) -> bool:
        """Whether no known hash differs from these."""
        for position in range(len(hashes) // HASH_BYTES):
            piece = first + position
            ours = self._hashes[piece * HASH_BYTES : (piece + 1) * HASH_BYTES]
            if self.known >> piece & 1 and ours != hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]:
                return False
        return True

    def hash_of(self, piece: int) -> bytes | None:
        """32 bytes, or None."""
        if not self.known >> piece & 1:
            return None
        return self.run(piece, piece)

    def run(self, first: int, last: int) -> bytes:
        """The hashes of pieces first..last, all of them known."""
        return bytes(self._hashes[first * HASH_BYTES : (last + 1) * HASH_BYTES])

    def signed_for(self, missing: int) -> list[SignedHashes]:
        """As few signed runs as cover exactly the known pieces of the mask, lowest first.

        A signature here is dear, but to check it is three times as dear, and each node does.
        """
        return [self._sign(first, last) for first, last in runs(missing & self.known)]

    def _sign(self, first: int, last: int) -> SignedHashes:
        signed = self._signed.get((first, last))
        if signed is None:
            hashes = self.run(first, last)
            signature = self._signer.sign_hashes(self._digest, self._layout, first, hashes)
            signed = self._signed[first, last] = SignedHashes(first, hashes, signature)
        return signed

    def clear(self) -> None:
        """The blob was voided: none of these hashes may be passed on."""
        self._hashes = bytearray(len(self._hashes))
        self._signed.clear()
        self.known = 0
