"""PieceLayout and masks: every byte lies in exactly one piece, and masks mean what they say."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import FrameInvalid
from proto.pieces import (
    KIB,
    MIB,
    PIECE_COUNT_MAX,
    PieceLayout,
    first_missing,
    indices,
    mask_from_bytes,
    mask_of,
    mask_to_bytes,
    piece_size_at,
    piece_size_for,
    range_piece_size_for,
    runs,
)

_layouts = st.builds(PieceLayout, st.integers(0, 10_000), st.integers(1, 700))
_masks = st.integers(0, (1 << 200) - 1)


@pytest.mark.parametrize(
    ("size", "piece_size"),
    [
        (0, 256 * KIB),
        (500, 256 * KIB),
        (64 * MIB, 256 * KIB),
        (64 * MIB + 1, 512 * KIB),
        (100_000_000, 512 * KIB),
        (1 << 30, 4 * MIB),
        (100 << 30, 16 * MIB),
    ],
)
def test_the_piece_size_is_the_next_power_of_two_of_a_256th(size: int, piece_size: int) -> None:
    assert piece_size_for(size) == piece_size


@given(st.integers(0, 1 << 40))
def test_a_blob_that_is_read_by_ranges_is_cut_finer_where_it_can_be(size: int) -> None:
    layout = PieceLayout(size, range_piece_size_for(size))
    assert 64 * KIB <= layout.piece_size_bytes <= piece_size_for(size)
    assert layout.piece_size_bytes <= MIB or size > PIECE_COUNT_MAX * MIB


@given(_layouts)
def test_the_pieces_cover_the_blob_without_gap_or_overlap(layout: PieceLayout) -> None:
    end = 0
    for piece in range(layout.count):
        assert layout.offset(piece) == end
        assert layout.length(piece) > 0
        end += layout.length(piece)
    assert end == layout.size_bytes


@given(_layouts, st.data())
def test_every_byte_is_found_in_its_piece(layout: PieceLayout, data: st.DataObject) -> None:
    if layout.size_bytes == 0:
        return
    offset = data.draw(st.integers(0, layout.size_bytes - 1))
    piece = layout.piece_at(offset)
    assert layout.offset(piece) <= offset < layout.offset(piece) + layout.length(piece)


@given(_layouts, st.data())
def test_byte_ranges_hold_exactly_the_bytes_of_the_mask(layout: PieceLayout, data: st.DataObject) -> None:
    mask = data.draw(st.integers(0, layout.full_mask))
    ranges = layout.byte_ranges(mask)
    assert sum(end - start for start, end in ranges) == layout.bytes_in(mask)
    assert all(first_end < second_start for (_, first_end), (second_start, _) in itertools.pairwise(ranges))


def test_a_zero_byte_blob_has_no_pieces_and_is_complete() -> None:
    layout = PieceLayout.of(0)
    assert layout.count == 0
    assert layout.full_mask == 0


def test_a_blob_cut_too_finely_is_refused() -> None:
    with pytest.raises(FrameInvalid, match="at most 65536"):
        PieceLayout(PIECE_COUNT_MAX + 1, 1)


def test_a_piece_beyond_the_blob_is_an_error() -> None:
    layout = PieceLayout(10, 4)
    with pytest.raises(IndexError):
        layout.length(3)
    with pytest.raises(IndexError):
        layout.piece_at(10)


@given(_masks)
def test_runs_and_indices_describe_the_same_mask(mask: int) -> None:
    from_runs = [piece for first, last in runs(mask) for piece in range(first, last + 1)]
    assert from_runs == list(indices(mask))
    assert mask_of(from_runs) == mask


@given(_masks, st.integers(0, 210))
def test_first_missing_ends_the_contiguous_prefix(mask: int, start: int) -> None:
    end = first_missing(mask, start)
    assert end >= start
    assert not mask >> end & 1
    assert all(mask >> piece & 1 for piece in range(start, end))


@given(st.integers(0, 300), st.data())
def test_a_bitfield_survives_the_wire(count: int, data: st.DataObject) -> None:
    mask = data.draw(st.integers(0, (1 << count) - 1))
    assert mask_from_bytes(mask_to_bytes(mask, count), count) == mask


@pytest.mark.parametrize(("raw", "count"), [(b"", 1), (b"\x00\x00", 8), (b"\x02", 1), (b"\xff", 7)])
def test_a_bitfield_of_the_wrong_length_or_with_stray_bits_is_refused(raw: bytes, count: int) -> None:
    with pytest.raises(FrameInvalid):
        mask_from_bytes(raw, count)


@pytest.mark.parametrize(
    ("size", "rate_bytes_s", "lease_s", "piece_size"),
    [
        (64 * MIB, 2_500_000, 0.005, 512 * KIB),
        (8 * MIB, 1_000_000, 0.005, 256 * KIB),
        (64 * MIB, 125_000_000, 0.005, MIB),
        (64 * MIB, 1_250_000_000, 0.005, 8 * MIB),
        (4 * MIB, 125_000_000, 0.01, MIB),
        (MIB, 400_000_000, 0.02, MIB),
        (100 << 30, 1e12, 10.0, 16 * MIB),
    ],
)
def test_fast_links_and_slow_leases_want_larger_pieces(
    size: int, rate_bytes_s: float, lease_s: float, piece_size: int
) -> None:
    assert piece_size_at(size, rate_bytes_s, lease_s, nodes=8) == piece_size


@pytest.mark.parametrize(
    ("nodes", "rate_bytes_s", "size", "piece_size"),
    [
        (200, 125e6, 500 * MIB, 8 * MIB),
        (200, 125e6, 64 * MIB, 4 * MIB),
        (200, 125e3, 64 * MIB, 256 * KIB),
        (20, 125e6, 64 * MIB, MIB),
    ],
)
def test_where_a_supernode_could_not_lease_as_fast_as_links_carry_pieces_are_longer(
    nodes: int, rate_bytes_s: float, size: int, piece_size: int
) -> None:
    assert piece_size_at(size, rate_bytes_s, 0.005, nodes) == piece_size


@given(st.integers(0, 1 << 40), st.floats(1.0, 1e12), st.floats(0.0, 100.0), st.integers(0, 10_000))
def test_no_rate_cuts_finer_than_usual_or_beyond_the_limit(
    size: int, rate_bytes_s: float, lease_s: float, nodes: int
) -> None:
    piece_size = piece_size_at(size, rate_bytes_s, lease_s, nodes)
    assert piece_size_for(size) <= piece_size <= 16 * MIB
    assert piece_size.bit_count() == 1
