"""The peerbook: every node with its two links, and masks of nodes for what matching asks all the time.

A node's budget is its own, over all its swarms. A node has a bit (its row, reused after it is lost; the seed's is
bit 0), so that "free holders of this piece in that rack" is two ANDs. Knows nothing of pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from supernode.scheduler.leases import Lease
    from supernode.scheduler.settings import SchedulerSettings
    from supernode.scheduler.swarm import Member

# How fast the estimate of one transfer's rate follows a faster and a slower transfer. Quick upwards: a slow
# transfer may be the other end's doing.
_FLOW_UP = 0.5
_FLOW_DOWN = 0.125
# A declared rate counts as filled here; what is left carries headers and control.
_FILLED = 0.9
_PROBE_WAIT_MAX = 1024


class Link:
    """One direction of a node's link: chains of transfers (a running one and at most one behind it) and its measured rates.

    Admission: with a declared rate, until the expected rates of its transfers fill it; else one transfer, and one
    more as long as that measurably carries more (a probe after a measured window, rarer each time it fails).
    """

    __slots__ = (
        "_before_probe",
        "_full",
        "_probe_wait",
        "_probe_wait_next",
        "_window_bytes",
        "_window_count",
        "_window_start",
        "chains",
        "declared",
        "flow",
        "open_ends",
        "slots",
        "used",
        "width",
    )

    def __init__(self, slots: int, declared: float | None) -> None:
        self.slots = slots
        self.declared = declared
        self.width = 1
        # Rate of one transfer, bytes/s, as lately seen.
        self.flow: float | None = None
        self.chains = 0
        # Sum of the expected rates of transfers that hold a slot.
        self.used = 0.0
        # Transfers about to end with none behind them yet.
        self.open_ends: list[Lease] = []
        self._window_start: float | None = None
        self._window_bytes = 0
        self._window_count = 0
        self._full = 0
        self._before_probe: float | None = None
        self._probe_wait = 1
        self._probe_wait_next = 4

    def room_now(self) -> bool:
        """Whether one more transfer could start at once."""
        if self.chains == 0:
            return self.slots > 0
        if self.chains >= self.slots:
            return False
        if self.declared is not None:
            return self.used < _FILLED * self.declared
        return self.chains < self.width

    def room(self) -> bool:
        """Whether one more transfer could start at once or right after one that is about to end."""
        return bool(self.open_ends) or self.room_now()

    def expected_flow(self, freed: float) -> float | None:
        """Rate that the next transfer gets at most, as far as this end knows; `freed` is what it inherits."""
        if self.declared is not None:
            return max(self.declared - self.used + freed, self.declared / max(1, self.slots))
        return self.flow

    def speed(self) -> float:
        """Rate of the whole link as far as known, bytes/s; 0.0 when not at all."""
        return self.declared or (self.flow or 0.0) * self.width

    def room_for_two(self) -> bool:
        """Whether a transfer started now would leave room for another."""
        if self.declared is not None:
            flow = self.flow or self.declared
            return self.chains + 2 <= self.slots and self.used + flow < _FILLED * self.declared
        return self.chains + 2 <= min(self.width, self.slots)

    def learn(self, size_bytes: int, elapsed_s: float, now: float, settings: SchedulerSettings) -> None:
        """Take in a transfer that ended well; call before its slot is given up."""
        if elapsed_s > 0.0:
            rate = size_bytes / elapsed_s
            if self.flow is None:
                self.flow = rate
            else:
                self.flow += (_FLOW_UP if rate > self.flow else _FLOW_DOWN) * (rate - self.flow)
        if self.declared is not None or self.slots <= 1:
            return
        if self._window_start is None:
            self._window_start = now
            return
        self._window_bytes += size_bytes
        self._window_count += 1
        self._full += self.chains >= self.width
        if self._window_count >= settings.width_window * self.width:
            self._close_window(now, settings)

    def idle(self) -> None:
        """Nothing runs: what was measured across the pause means nothing."""
        self._window_start = None
        self._window_bytes = self._window_count = self._full = 0

    def _close_window(self, now: float, settings: SchedulerSettings) -> None:
        start = self._window_start
        assert start is not None
        saturated = self._full * 4 >= self._window_count * 3
        rate = self._window_bytes / (now - start) if now > start else None
        self._window_start = now
        self._window_bytes = self._window_count = self._full = 0
        if not saturated or rate is None:
            return
        if self._before_probe is not None:
            if rate < settings.width_gain * self._before_probe:
                self.width -= 1
                self._probe_wait = self._probe_wait_next
                self._probe_wait_next = min(4 * self._probe_wait_next, _PROBE_WAIT_MAX)
            self._before_probe = None
        elif self._probe_wait > 0:
            self._probe_wait -= 1
        elif self.width < self.slots:
            self._before_probe = rate
            self.width += 1


class Node:
    """A peer as the scheduler sees it."""

    __slots__ = (
        "avoid",
        "bit",
        "blocked_down_until",
        "blocked_up_until",
        "down",
        "faults",
        "leases_in",
        "leases_out",
        "members",
        "peer",
        "places",
        "quarantined",
        "row",
        "up",
        "wanting",
    )

    def __init__(self, peer: int, row: int, places: tuple[str, ...], up: Link, down: Link) -> None:
        self.peer = peer
        self.row = row
        self.bit = 1 << row
        # Nearest first: rack, zone, region; each named with all above it, absent where a part is empty.
        self.places = places
        self.up = up
        self.down = down
        self.quarantined = False
        self.faults = 0
        self.blocked_up_until = 0.0
        self.blocked_down_until = 0.0
        # Nodes (mask) this one is not to fetch from for now.
        self.avoid = 0
        # Swarm number to membership; `wanting` those with something left to lease, in rotation.
        self.members: dict[int, Member] = {}
        self.wanting: dict[int, Member] = {}
        # Lease id to lease, inline ones included.
        self.leases_in: dict[int, Lease] = {}
        self.leases_out: dict[int, Lease] = {}

    @property
    def rack(self) -> str | None:
        """Its rack, if its zone names one."""
        return self.places[0] if len(self.places) == 3 else None


def places_of(zone: str) -> tuple[str, ...]:
    """`region/zone/rack` to (region/zone/rack, region/zone, region), as far as the parts are given."""
    parts: list[str] = []
    for part in zone.split("/")[:3]:
        if not part:
            break
        parts.append(part)
    return tuple("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))


class PeerBook:
    """All nodes with a session, and the seed."""

    __slots__ = (
        "_rows",
        "avoided",
        "free_down",
        "free_up",
        "idle_up",
        "nodes",
        "places",
        "rows",
        "settings",
        "sunk",
        "typical_flow",
    )

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.nodes: dict[int, Node] = {}
        # Row to node; None where a lost node's row waits for reuse.
        self.rows: list[Node | None] = []
        self._rows: list[int] = []
        self.free_up = 0
        self.free_down = 0
        # No upload running at all.
        self.idle_up = 0
        # Slow or faulty: asked last.
        self.sunk = 0
        # Some node avoids them as a source.
        self.avoided = 0
        self.places: dict[str, int] = {}
        # Rate of a transfer between any two nodes, as lately seen.
        self.typical_flow: float | None = None

    def join(self, peer: int, zone: str, up: Link, down: Link) -> Node:
        """Enter a node. The peer must not be known."""
        assert peer not in self.nodes
        if self._rows:
            row = self._rows.pop()
        else:
            row = len(self.rows)
            self.rows.append(None)
        node = Node(peer, row, places_of(zone), up, down)
        self.rows[row] = node
        self.nodes[peer] = node
        for place in node.places:
            self.places[place] = self.places.get(place, 0) | node.bit
        self.refresh(node)
        return node

    def leave(self, node: Node) -> None:
        """Forget a node that has no lease and no membership left."""
        del self.nodes[node.peer]
        self.rows[node.row] = None
        self._rows.append(node.row)
        clear = ~node.bit
        self.free_up &= clear
        self.free_down &= clear
        self.idle_up &= clear
        self.sunk &= clear
        for place in node.places:
            left = self.places[place] & clear
            if left:
                self.places[place] = left
            else:
                del self.places[place]
        for other in self.nodes.values():
            other.avoid &= clear
        self.avoided &= clear

    def at(self, row: int) -> Node:
        """The node of a row that is in use."""
        node = self.rows[row]
        assert node is not None, f"row {row} is empty"
        return node

    def of(self, mask: int) -> list[Node]:
        """The nodes of a mask, by row."""
        return [self.at(row) for row in indices(mask)]

    def refresh(self, node: Node) -> None:
        """Bring the masks up to date after anything about the node's links changed."""
        self.refresh_up(node)
        self.refresh_down(node)

    def refresh_up(self, node: Node) -> None:
        """The upload half of refresh."""
        bit = node.bit
        link = node.up
        if (link.open_ends or link.room_now()) and not node.quarantined and not node.blocked_up_until:
            self.free_up |= bit
        else:
            self.free_up &= ~bit
        if link.chains:
            self.idle_up &= ~bit
        else:
            self.idle_up |= bit

    def refresh_down(self, node: Node) -> None:
        """The download half of refresh."""
        link = node.down
        if (link.open_ends or link.room_now()) and not node.blocked_down_until:
            self.free_down |= node.bit
        else:
            self.free_down &= ~node.bit

    def avoid(self, receiver: Node, source: Node) -> None:
        """Let the receiver fetch nothing from this source until make_up."""
        receiver.avoid |= source.bit
        self.avoided |= source.bit

    def make_up(self, receiver: Node, source: Node) -> None:
        """End of avoid."""
        receiver.avoid &= ~source.bit
        if not any(node.avoid & source.bit for node in self.nodes.values()):
            self.avoided &= ~source.bit

    def judge(self, node: Node) -> None:
        """Sink a slow or faulty node in the order of sources, or let it rise again. The seed is what it is."""
        typical = self.typical_flow
        flow = node.up.flow
        slow = typical is not None and flow is not None and flow < self.settings.slow_part * typical
        if node.peer != SEED and (slow or node.faults >= self.settings.faults_sunk):
            self.sunk |= node.bit
        else:
            self.sunk &= ~node.bit
