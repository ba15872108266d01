"""Payload, from the counters of an interface."""

from __future__ import annotations

from benchmarks.cluster.namespaces import parse_device_counters
from benchmarks.fanout.site import received_payload, sent_payload


def test_payload_is_what_frames_hold_beyond_headers() -> None:
    text = "Inter-|\n face |\n  n0: 3028 2 0 0 0 0 0 0 660 10 0 0 0 0 0 0\n    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    counters = parse_device_counters(text)
    assert set(counters) == {"n0", "lo"}
    assert received_payload(counters["n0"]) == 2 * 1448
    assert sent_payload(counters["n0"]) == 0  # ten acknowledgements
