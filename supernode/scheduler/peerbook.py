"""The peerbook: every node with its two links, and masks of nodes for what matching asks all the time.

A node's budget is its own, over all its swarms. A node has a bit (its row, reused after it is lost; the seed's is
bit 0), so that "free holders of this piece in that rack" is two ANDs. Knows nothing of pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease
    from supernode.scheduler.settings import SchedulerSettings
    from supernode.scheduler.swarm import Member

# How fast the estimate of what a link carries follows a faster and a slower transfer. Slow downwards: a slow
# transfer may be the other end's doing.
_RISE: Final = 0.5
_FALL: Final = 1 / 16
# A declared rate counts as filled at this part of it (the rest carries headers and control), a learned one, which
# rises with every quick transfer, sooner.
_FILLED: Final = 0.9
_UNFILLED: Final = 0.6
# What a transfer takes of a link while the other end is unknown, bytes/s: more than any link has.
FILLS: Final = 1e15
# How fast the estimate of a link's idle part follows upwards and downwards, and from where on it counts: then a grant
# takes longer to become a transfer than one transfer lasts, and one more must be on its way.
_GAP_RISE: Final = 0.5
_GAP_FALL: Final = 1 / 256
_GAPPY: Final = 0.03
# A link counts as shared if more than this part of a second transfer ran on average.
_PARTLY: Final = 0.35


class Link:
    """One direction of a node's link: chains of transfers (a running one, at most one behind it) and what it carries.

    Admission: one transfer, and one more while the links at the other ends together cannot fill this one. Its own
    rate is declared, or learned: a transfer's rate times the mean number that ran beside it (itself included) is
    what the link carried at least. It is not probed with more than that: shared links make every hop of a rare piece
    longer, and a seed that sends at the rate of one peer's link already keeps a swarm of equal links at its bound.
    """

    __slots__ = (
        "_area",
        "_area_at",
        "_ended_at",
        "_gap_part",
        "carries",
        "chains",
        "declared",
        "open_ends",
        "running",
        "slots",
        "used",
    )

    def __init__(self, slots: int, declared: float | None) -> None:
        self.slots = slots
        self.declared = declared
        # Bytes/s that it was lately seen to carry; None until a transfer ended.
        self.carries: float | None = None
        self.chains = 0
        # What the other ends of its transfers could take or give together, at most its own rate each.
        self.used = 0.0
        # Transfers about to end with none behind them yet.
        self.open_ends: list[Lease] = []
        # Transfers started and not ended, and the integral of their number over time.
        self.running = 0
        self._area = 0.0
        self._area_at = 0.0
        # When its last transfer ended, and for what part of a transfer's time it lately stood idle although the
        # next one had been granted by then.
        self._ended_at = 0.0
        self._gap_part = 0.0

    def room_now(self) -> bool:
        """Whether one more transfer could start at once."""
        if self.chains == 0:
            return self.slots > 0
        if self.chains >= self.slots:
            return False
        if self.chains == 1 and self._gap_part > _GAPPY:
            return True
        if self.declared is not None:
            return self.used < _FILLED * self.declared
        return self.used < _UNFILLED * (self.carries or 0.0)

    def room(self) -> bool:
        """Whether one more transfer could start at once or right after one that is about to end."""
        return bool(self.open_ends) or self.room_now()

    def room_for_two(self) -> bool:
        """Whether a transfer started now would leave room for another."""
        flow = self.used / self.chains if self.chains else self.speed()
        filled = _FILLED * self.declared if self.declared is not None else _UNFILLED * (self.carries or 0.0)
        return self.chains + 2 <= self.slots and self.used + flow < filled

    def expected_flow(self, behind: Lease | None) -> float | None:
        """Rate of one more transfer as far as this end knows; `behind` is the one it follows."""
        speed = self.declared or self.carries
        if not speed:
            return None
        if behind is None:
            return max(speed - self.used, speed / (self.chains + 1))
        return max(speed - (self.used - self.share(behind)), speed / self.chains)

    def share(self, lease: Lease) -> float:
        """What the transfer's other end could take or give of this link's rate; all of it while unknown."""
        return min(lease.share, self.declared) if self.declared is not None else lease.share

    def speed(self) -> float:
        """Rate of the whole link as far as known, bytes/s; 0.0 when not at all."""
        return self.declared or self.carries or 0.0

    def area(self, now: float) -> float:
        """Transfer-seconds so far."""
        return self._area + self.running * (now - self._area_at)

    def begin(self, now: float) -> float:
        """A transfer began; returns `area`."""
        self._area += self.running * (now - self._area_at)
        self._area_at = now
        self.running += 1
        return self._area

    def end(self, now: float) -> None:
        """A transfer ended."""
        self._area += self.running * (now - self._area_at)
        self._area_at = now
        self.running -= 1

    def saw_gap(self, granted_at: float, ready_at: float | None, elapsed_s: float, now: float) -> None:
        """A transfer ended that was granted at `granted_at` and took `elapsed_s`: did it leave the link idle before?

        `ready_at` is when both its ends were free: while the other end was busy, this one was idle for no fault of
        the grant's.
        """
        if granted_at < self._ended_at and ready_at is not None:
            gap_part = max(0.0, now - elapsed_s - max(self._ended_at, ready_at)) / elapsed_s
            self._gap_part += (_GAP_RISE if gap_part > self._gap_part else _GAP_FALL) * (gap_part - self._gap_part)
        self._ended_at = now

    def see_idle(self) -> None:
        """What runs over it is far slower than foreseen: one more transfer beside it."""
        self._gap_part = 1.0

    def forget_gap(self) -> None:
        """Several nodes want what goes over this link: it takes no further transfer on account of gaps."""
        self._gap_part = 0.0

    def learn(self, rate: float, beside: float, beside_there: float) -> None:
        """Take in a transfer that ended well: its rate in bytes/s, the mean numbers running here and at its other end.

        Where the other end was shared, it may be what limited the transfer: no reason to think less of this one.
        """
        carried = rate * beside
        if self.carries is None:
            self.carries = carried
        elif carried > self.carries:
            self.carries += _RISE * (carried - self.carries)
        elif beside_there <= 1.0 + _PARTLY:
            self.carries += _FALL * (carried - self.carries)


class Node:
    """A peer as the scheduler sees it."""

    __slots__ = (
        "avoid",
        "avoided_by",
        "bit",
        "blocked_down_until",
        "blocked_up_until",
        "dirty_down",
        "dirty_up",
        "down",
        "faults",
        "gets_nothing",
        "gives",
        "hungry_at",
        "leases_in",
        "leases_out",
        "members",
        "peer",
        "places",
        "quarantined",
        "rack",
        "row",
        "sends_nothing",
        "takes",
        "timeouts",
        "up",
        "wanting",
    )

    def __init__(self, peer: int, row: int, places: tuple[str, ...], up: Link, down: Link) -> None:
        self.peer = peer
        self.row = row
        self.bit = 1 << row
        # Nearest first: rack, zone, region; each named with all above it, absent where a part is empty.
        self.places = places
        # The first of them, if the zone names a rack.
        self.rack = places[0] if len(places) == 3 else None
        self.up = up
        self.down = down
        self.quarantined = False
        # Whether it is in the book's masks free_up, free_down, idle_up and idle_down.
        self.gives = False
        self.takes = False
        self.sends_nothing = False
        self.gets_nothing = False
        # Whether it is in Core.dirty_up and Core.dirty_down.
        self.dirty_up = False
        self.dirty_down = False
        self.faults = 0
        # Leases to it that expired since one ended well.
        self.timeouts = 0
        self.blocked_up_until = 0.0
        self.blocked_down_until = 0.0
        # When it will have waited for its rack for long enough; None while it is being served.
        self.hungry_at: float | None = None
        # Nodes (mask) this one is not to fetch from for now.
        self.avoid = 0
        # Nodes (mask) that are not to fetch from this one for now.
        self.avoided_by = 0
        # Swarm number to membership; `wanting` those with something left to lease, in rotation.
        self.members: dict[int, Member] = {}
        self.wanting: dict[int, Member] = {}
        # Lease id to lease, inline ones included.
        self.leases_in: dict[int, Lease] = {}
        self.leases_out: dict[int, Lease] = {}


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
        "idle_down",
        "idle_up",
        "nodes",
        "places",
        "reaction_s",
        "roaming",
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
        # No upload, no download running at all.
        self.idle_up = 0
        self.idle_down = 0
        # Slow or faulty: asked last.
        self.sunk = 0
        # Some node avoids them as a source.
        self.avoided = 0
        self.places: dict[str, int] = {}
        # Rate of a transfer between any two nodes, as lately seen.
        self.typical_flow: float | None = None
        # Their racks let them wait for long: they may fetch from others what their racks have.
        self.roaming = 0
        # From a grant to a node that is free until its transfer begins, and the way of the report that says so.
        self.reaction_s = settings.reaction_s

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
        self.idle_down &= clear
        self.sunk &= clear
        self.roaming &= clear
        for place in node.places:
            left = self.places[place] & clear
            if left:
                self.places[place] = left
            else:
                del self.places[place]
        for other in self.of(node.avoided_by):
            other.avoid &= clear
        self.avoided &= clear
        for other in self.of(node.avoid):
            self._avoided_by_one_less(other, node)

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
        link = node.up
        gives = bool(link.open_ends) or link.room_now()
        if gives and (node.quarantined or node.blocked_up_until):
            gives = False
        # Masks of many nodes are long: they are touched when something changed.
        if gives is not node.gives:
            node.gives = gives
            self.free_up ^= node.bit
        if (link.chains == 0) is not node.sends_nothing:
            node.sends_nothing = not node.sends_nothing
            self.idle_up ^= node.bit

    def refresh_down(self, node: Node) -> None:
        """The download half of refresh."""
        link = node.down
        takes = bool(link.open_ends) or link.room_now()
        if takes and node.blocked_down_until:
            takes = False
        if takes is not node.takes:
            node.takes = takes
            self.free_down ^= node.bit
        if (link.chains == 0) is not node.gets_nothing:
            node.gets_nothing = not node.gets_nothing
            self.idle_down ^= node.bit

    def avoid(self, receiver: Node, source: Node) -> None:
        """Let the receiver fetch nothing from this source until make_up."""
        receiver.avoid |= source.bit
        source.avoided_by |= receiver.bit
        self.avoided |= source.bit

    def make_up(self, receiver: Node, source: Node) -> None:
        """End of avoid."""
        receiver.avoid &= ~source.bit
        self._avoided_by_one_less(source, receiver)

    def _avoided_by_one_less(self, source: Node, receiver: Node) -> None:
        source.avoided_by &= ~receiver.bit
        if not source.avoided_by:
            self.avoided &= ~source.bit

    def judge(self, node: Node) -> None:
        """Sink a slow or faulty node in the order of sources, or let it rise again. The seed is what it is."""
        typical = self.typical_flow
        carries = node.up.carries
        slow = typical is not None and carries is not None and carries < self.settings.slow_part * typical
        if node.peer != SEED and (slow or node.faults >= self.settings.faults_sunk):
            self.sunk |= node.bit
        elif self.sunk & node.bit:
            self.sunk ^= node.bit
