"""How busy all cores were."""

from __future__ import annotations

from benchmarks.fanout.usage import CoreTime


def test_busy_is_neither_idle_nor_waiting() -> None:
    before = CoreTime.parse("cpu  100 0 100 1000 100 0 0 0 0 0\ncpu0 1 1 1\n")
    after = CoreTime.parse("cpu  160 0 110 1020 110 0 0 0 50 0\ncpu0 1 1 1\n")
    assert after.busy_since(before) == 0.7


def test_what_passes_frames_on_are_interrupts() -> None:
    before = CoreTime.parse("cpu  0 0 0 1000 0 0 0 0 0 0\n")
    after = CoreTime.parse("cpu  40 0 20 1010 0 10 20 0 0 0\n")
    assert after.network_since(before) == 0.3
