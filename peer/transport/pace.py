"""Whether a receiver takes what it is sent: slowly, or not at all. Pure; what the kernel knows comes from outside."""

from __future__ import annotations

from typing import Final, NamedTuple

# A transfer below this rate whose receiver makes it wait leaves most of any link unused: it takes no slot from others.
SLOW_BYTES_S: Final = 64 * 1024
# For this part of the time it makes it wait, at least.
SLOW_PART: Final = 0.5
# How long a transfer is watched each time before it is judged.
SLOW_WINDOW_S: Final = 2.0
# A transfer that does not get on at this rate is ended: its receiver could hold a slot for an hour.
FLOOR_BYTES_S: Final = 16 * 1024


class Progress(NamedTuple):
    """Of all that a connection ever sent: what the receiver acknowledged, and for how long its buffer was full."""

    acknowledged_bytes: int
    receiver_full_s: float


class Pace:
    """Of one transfer, which begins now. Over each `floor_window_s` it must keep to the floor."""

    def __init__(self, progress: Progress, now_s: float, floor_window_s: float) -> None:
        self._floor_window_s = floor_window_s
        self._slow_from = self._floor_from = (now_s, progress)
        self.slow = False
        self.stalled = False

    def take(self, progress: Progress, now_s: float, share_bytes_s: float) -> None:
        """A reading. `share_bytes_s`: what our own limit leaves to one transfer; nobody is slow for that."""
        since_s, before = self._slow_from
        elapsed_s = now_s - since_s
        if elapsed_s >= SLOW_WINDOW_S:
            rate = (progress.acknowledged_bytes - before.acknowledged_bytes) / elapsed_s
            full_s = progress.receiver_full_s - before.receiver_full_s
            self.slow = rate < min(SLOW_BYTES_S, share_bytes_s) and full_s >= SLOW_PART * elapsed_s
            self._slow_from = (now_s, progress)
        since_s, before = self._floor_from
        elapsed_s = now_s - since_s
        if elapsed_s >= self._floor_window_s:
            rate = (progress.acknowledged_bytes - before.acknowledged_bytes) / elapsed_s
            self.stalled = rate < min(FLOOR_BYTES_S, share_bytes_s)
            self._floor_from = (now_s, progress)
