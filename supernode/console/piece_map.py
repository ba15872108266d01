"""How widely the pieces of a blob are spread, in one digit for each piece, or for a few of them. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

# A screen is no wider.
CELLS_MAX: Final = 256


def piece_map(copies: list[int], nodes: int) -> str:
    """A digit a cell: 0, nobody has it; 1, there is one copy; 2 to 9, by how many of so many nodes have it.

    Of more than CELLS_MAX pieces several share a cell, which is as bright as the rarest of them.
    """
    if len(copies) > CELLS_MAX:
        edges = [len(copies) * cell // CELLS_MAX for cell in range(CELLS_MAX + 1)]
        copies = [min(copies[first:last]) for first, last in pairwise(edges)]
    others = max(1, nodes)
    digits = ["0", "1", *(str(2 + min(7, 7 * (count - 1) // others)) for count in range(2, nodes + 2))]
    most = len(digits) - 1
    return "".join([digits[min(count, most)] for count in copies])
