"""What the simulated transport keeps of each node and each fetch. Plain data: benchmarks.simulator.transport acts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.links import Flow

    # (the receiver's number for it, reason, elapsed seconds); the reason is empty on success.
    Ended = Callable[[int, str, float], None]


class Endpoint:
    """What a node holds (a mask a blob), its upload slots with the queue before them, and what it moved."""

    __slots__ = (
        "air_bytes",
        "alive",
        "broken_bytes",
        "corrupt",
        "held",
        "life",
        "number",
        "received_bytes",
        "running",
        "sent_bytes",
        "transfers",
        "waiting",
        "warm",
    )

    def __init__(self, number: int, blobs: int) -> None:
        self.number = number
        self.held = [0] * blobs
        self.alive = True
        # Grows when the node leaves: slots and connections of an earlier life are nothing to a later one.
        self.life = 0
        # Sends wrong bytes.
        self.corrupt = False
        self.running = 0
        self.waiting: deque[Transfer] = deque()
        # Both ways.
        self.transfers: dict[Transfer, None] = {}
        # Sources that it has a connection to, with the time when that was last used.
        self.warm: dict[int, float] = {}
        self.sent_bytes = 0.0
        # Whole and right; cut short, wrong or too late; and sent to it but not there yet.
        self.received_bytes = 0.0
        self.broken_bytes = 0.0
        self.air_bytes = 0.0


class Transfer:
    """One fetch of one piece."""

    __slots__ = (
        "ahead",
        "began_s",
        "blob",
        "deadline",
        "deadline_s",
        "ended",
        "flow",
        "followers",
        "half_s",
        "late_s",
        "moved_bytes",
        "nearly_over",
        "number",
        "over",
        "piece",
        "ramp",
        "receiver",
        "rested",
        "source",
        "source_life",
    )

    def __init__(
        self,
        receiver: Endpoint,
        source: Endpoint,
        blob: int,
        piece: int,
        deadline_s: float,
        began_s: float,
        half_s: float,
        ended: Ended,
        number: int,
        ahead: bool,
    ) -> None:
        self.receiver = receiver
        self.source = source
        self.source_life = source.life
        self.blob = blob
        self.piece = piece
        self.deadline_s = deadline_s
        self.began_s = began_s
        self.half_s = half_s
        self.ended = ended
        self.number = number
        # To begin when another transfer of the source has ended.
        self.ahead = ahead
        # Fetches of the same receiver that are asked for when this one is nearly over, and whether it is.
        self.followers: list[Transfer] = []
        self.nearly_over = False
        # What moved in flows before this one.
        self.moved_bytes = 0.0
        # Its connection is new, or had nothing to do for long.
        self.rested = False
        # What it would lose to slow start, as a wait before its bytes flow; then they do.
        self.ramp: Call | None = None
        self.flow: Flow | None = None
        # When it is given up, and a call that comes then or earlier.
        self.late_s = 0.0
        self.deadline: Call | None = None
        self.over = False
