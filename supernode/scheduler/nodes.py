"""The peerbook: every node with its two links, and masks of nodes for what matching asks all the time.

A node's budget is its own, over all its swarms. A node has a bit (its row, reused after it is lost; the seed's is
bit 0), so that "free holders of this piece in that rack" is two ANDs. Knows nothing of pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler.contract import SEED
from supernode.scheduler.link import band_of

if TYPE_CHECKING:
    from supernode.scheduler.lease import Lease
    from supernode.scheduler.link import Link
    from supernode.scheduler.settings import SchedulerSettings
    from supernode.scheduler.swarm import Member

# Links whose bands are no further apart, twice their rate or half of it, are alike.
_NEAR_BANDS: Final = 2


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
        "down_band",
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
        "up_band",
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
        # Its links' bands, as the book has them.
        self.up_band: int | None = None
        self.down_band: int | None = None
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
        "down_bands",
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
        "up_bands",
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
        # By band the nodes whose uplink's, and whose downlink's, rate is known.
        self.up_bands: dict[int, int] = {}
        self.down_bands: dict[int, int] = {}
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
        self.band(node)
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
        _move(self.up_bands, node, node.up_band, None)
        _move(self.down_bands, node, node.down_band, None)
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
        gives = link.room()
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
        takes = link.room()
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

    def slow_rate(self) -> float:
        """From which rate on downwards a link is slow, bytes/s; 0.0 while nothing is measured."""
        return self.settings.slow_part * (self.typical_flow or 0.0)

    def band(self, node: Node) -> None:
        """Note how fast its links are, after something was learned of them."""
        up, down = node.up.band(), node.down.band()
        if up != node.up_band:
            _move(self.up_bands, node, node.up_band, up)
            node.up_band = up
        if down != node.down_band:
            _move(self.down_bands, node, node.down_band, down)
            node.down_band = down

    def judge(self, node: Node) -> None:
        """Sink a slow or faulty node in the order of sources, or let it rise again. The seed is what it is.

        One slow transfer sinks nobody: it may have been the other end's doing, and who is asked for nothing stays sunk.
        """
        carries = node.up.carries
        slow = carries is not None and node.up.measured > 1 and carries < self.slow_rate()
        if node.peer != SEED and (slow or node.faults >= self.settings.faults_sunk):
            self.sunk |= node.bit
        elif self.sunk & node.bit:
            self.sunk ^= node.bit


def like(bands: dict[int, int], nodes: int, link: Link) -> int:
    """Those of the nodes whose links, by their `bands`, are about as fast as this one at the other end.

    With a link that may be faster than it was seen to be, those that are not known to be slower: else it would only
    ever be seen to be as slow.
    """
    if not bands:
        return nodes
    own = link.own()
    speed = own or link.speed()
    if not speed:
        return nodes
    band = band_of(speed)
    slower = alike = 0
    for other, of_band in bands.items():
        if other < band - _NEAR_BANDS:
            slower |= of_band
        elif other <= band + _NEAR_BANDS:
            alike |= of_band
    return nodes & alike if own else nodes & ~slower


def _move(bands: dict[int, int], node: Node, before: int | None, after: int | None) -> None:
    if before is not None:
        left = bands[before] ^ node.bit
        if left:
            bands[before] = left
        else:
            del bands[before]
    if after is not None:
        bands[after] = bands.get(after, 0) | node.bit
