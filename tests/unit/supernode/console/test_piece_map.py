"""A digit for each piece, or for some."""

from __future__ import annotations

from supernode.console.piece_map import CELLS_MAX, piece_map


def test_a_digit_says_how_many_nodes_have_a_piece() -> None:
    # The supernode's copy is one of them.
    assert piece_map([0, 1, 2, 51, 101], 100) == "01259"


def test_a_blob_without_nodes_has_a_map() -> None:
    assert piece_map([0, 1], 0) == "01"


def test_more_pieces_than_cells_share_them_and_the_rarest_counts() -> None:
    copies = [11] * (2 * CELLS_MAX)
    copies[3] = 1
    found = piece_map(copies, 10)
    assert len(found) == CELLS_MAX
    assert found[:3] == "919"
