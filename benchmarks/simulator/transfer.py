"""What the simulated transport keeps of each node and each fetch. Plain data: benchmarks.simulator.transport acts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.simulator.clock import Call  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from benchmarks.simulator.links import Flow  # noqa: TC001  # the same
from peer.transport.request_lead import RequestLead

# (the receiver's number for it, reason, elapsed seconds); the reason is empty on success.
Ended = Callable[[int, str, float], None]


class Endpoint:
    """What a node holds (a mask a blob), its upload slots with the queue before them, and what it moved."""

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
        # Sources that it has a connection to.
        self.connected: set[int] = set()
        # How soon before the end of a transfer the next is asked for.
        self.lead = RequestLead()
        self.sent_bytes = 0.0
        # Whole and right; cut short, wrong or too late; and sent to it but not there yet.
        self.received_bytes = 0.0
        self.broken_bytes = 0.0
        self.air_bytes = 0.0


@dataclass(slots=True, eq=False)
class Transfer:
    """One fetch of one piece."""

    receiver: Endpoint
    source: Endpoint
    source_life: int
    blob: int
    piece: int
    deadline_s: float
    began_s: float
    half_s: float
    ended: Ended
    number: int
    # To begin when another transfer of the source has ended.
    ahead: bool
    # Fetches of the same receiver that are asked for when this one is nearly over, and whether it is.
    followers: list[Transfer] = field(default_factory=list)
    nearly_over: bool = False
    # When its request left.
    asked_s: float = 0.0
    # What moved in flows before this one.
    moved_bytes: float = 0.0
    flow: Flow | None = None
    # When it is given up, and a call that comes then or earlier.
    late_s: float = 0.0
    deadline: Call | None = None
    over: bool = False
