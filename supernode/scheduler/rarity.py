"""Rarity: how many copies of each piece the peers hold or are about to, as masks of pieces per level of rarity.

Exact up to 32 copies, then eight levels an octave, so that a move costs the same at 200 peers and at 10,000.
The seed's copy is never counted: level 0 is what no peer has and no peer is being sent.
"""

from __future__ import annotations

from supernode.scheduler.settings import EXACT_COPIES


def level_of(copies: int) -> int:
    """The level of a count of copies; monotonic, equal to the count up to 32."""
    if copies < EXACT_COPIES:
        return copies
    octave = copies.bit_length() - 6
    return EXACT_COPIES + 8 * octave + (copies >> (octave + 2)) - 8


class Rarity:
    """Counts of copies for `piece_count` pieces, all 0 at first."""

    __slots__ = ("counts", "levels", "occupied")

    def __init__(self, piece_count: int) -> None:
        self.counts = [0] * piece_count
        self.levels: list[int] = [(1 << piece_count) - 1]
        # Mask of the levels that have any piece.
        self.occupied = 1 if piece_count else 0

    def add(self, piece: int) -> None:
        """One copy more."""
        self._change(piece, 1)

    def remove(self, piece: int) -> None:
        """One copy less."""
        assert self.counts[piece] > 0, f"piece {piece} has no copy to remove"
        self._change(piece, -1)

    def _change(self, piece: int, by: int) -> None:
        copies = self.counts[piece]
        self.counts[piece] = copies + by
        before, after = level_of(copies), level_of(copies + by)
        if before == after:
            return
        bit, levels = 1 << piece, self.levels
        levels[before] ^= bit
        if not levels[before]:
            self.occupied ^= 1 << before
        if len(levels) <= after:
            levels.extend([0] * (after + 1 - len(levels)))
        if not levels[after]:
            self.occupied |= 1 << after
        levels[after] |= bit

    def up_to(self, copies: int) -> int:
        """Pieces with that many copies or fewer, and perhaps some of the level's next counts."""
        found = 0
        for level in self.levels[: level_of(copies) + 1]:
            found |= level
        return found

    def least(self, candidates: int) -> int:
        """The lowest level that one of the candidates is on; there must be one."""
        for level, pieces in enumerate(self.levels):
            if pieces & candidates:
                return level
        raise AssertionError("no candidate is a piece")

    def rarest(self, candidates: int) -> int:
        """Those of the candidates that are on the lowest level; 0 if there are none."""
        occupied = self.occupied
        levels = self.levels
        while occupied:
            low = occupied & -occupied
            found = levels[low.bit_length() - 1] & candidates
            if found:
                return found
            occupied ^= low
        return 0
