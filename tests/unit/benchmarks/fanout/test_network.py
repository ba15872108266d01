"""The bucket of a shaped link."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fanout.network import burst_bytes

MIB = 1 << 20


@given(st.floats(1e4, 1e9), st.sampled_from([1514, 9014]), st.integers(1 << 14, 16 * MIB))
def test_a_bucket_holds_a_few_frames_or_at_most_a_quarter_of_a_piece(rate: float, frame: int, piece: int) -> None:
    burst = burst_bytes(rate, frame, piece)
    assert burst >= 4 * frame
    assert burst <= max(4 * frame, piece / 4 + 1)
