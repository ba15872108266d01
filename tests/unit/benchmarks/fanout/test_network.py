"""The bucket of a shaped link, and what passes it at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fanout.network import FRAME_MIN_BYTES, PACKET_S, burst_bytes, frame_bytes_at, segments_at_once
from benchmarks.fanout.site import ETHERNET_BYTES

MIB = 1 << 20


@given(st.floats(1e4, 1e9), st.sampled_from([1514, 9014]), st.integers(1 << 14, 16 * MIB))
def test_a_bucket_holds_a_few_frames_or_at_most_a_quarter_of_a_piece(rate: float, frame: int, piece: int) -> None:
    burst = burst_bytes(rate, frame, piece)
    assert burst >= 4 * frame
    assert burst <= max(4 * frame, piece / 4 + 1)


@given(st.floats(1e4, 1e9), st.integers(1 << 14, 16 * MIB))
def test_a_packet_holds_its_link_for_4_ms_at_most_or_is_one_small_frame(rate: float, piece: int) -> None:
    frame = frame_bytes_at(rate) + ETHERNET_BYTES
    burst = burst_bytes(rate, frame, piece)
    packet = frame * segments_at_once(rate, frame, burst)
    assert packet <= max(FRAME_MIN_BYTES, rate * PACKET_S) + ETHERNET_BYTES + 1
    assert packet <= burst / 2
