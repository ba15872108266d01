"""The scheduler's whole state: nodes, swarms, leases and timers, and the bookkeeping on them that every rule uses.

A node has a bit (its row, reused after it is lost; the seed's is bit 0), so that "holders of this piece with room, in
that rack" is two ANDs. Nothing here decides: it keeps count for the rules and calls none of them.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from proto.pieces import indices
from supernode.scheduler.contract import ID_BITS, SEED, Command, FailReason
from supernode.scheduler.origin_pace import OriginPace
from supernode.scheduler.records import DOWN, NO_TIMER, UP, Direction, Lease, Link, Node
from supernode.scheduler.story import Stories
from supernode.scheduler.timers import Timers

if TYPE_CHECKING:
    import random

    from supernode.scheduler.records import Member, OriginPlan, Swarm
    from supernode.scheduler.settings import SchedulerSettings

# What is counted, by name.
COUNTED: Final = (
    "granted",
    "stored",
    "expired",
    "cancelled",
    "lost",
    "late",
    "raced",
    *(f"failed_{reason.value}" for reason in FailReason),
    "quarantined",
    "origin_fetches",
    "origin_failures",
    "elections",
    "origins_opened",
    "ignored",
)


def places_of(zone: str) -> tuple[str, ...]:
    """`region/zone/rack` to (region/zone/rack, region/zone, region), as far as the parts are given."""
    parts = list(takewhile(bool, zone.split("/")[:3]))
    return tuple("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))


class State:
    """What the machine knows. A node's budget is its own, over all its swarms."""

    def __init__(
        self,
        rng: random.Random,
        settings: SchedulerSettings,
        epoch: int,
        *,
        seed_upload_slots: int,
        seed_download_slots: int,
        seed_upload_rate: float | None,
    ) -> None:
        self.rng = rng
        self.settings = settings
        self.epoch = epoch
        self.now = 0.0
        self.nodes: dict[int, Node] = {}
        # Row to node; None where a lost node's row waits for reuse.
        self.rows: list[Node | None] = []
        self.free_rows: list[int] = []
        self.up = Direction(UP)
        self.down = Direction(DOWN)
        # From here on masks of nodes. Slow or faulty: asked last.
        self.deprioritized = 0
        # Some node is not to fetch from them for now.
        self.blocked_sources = 0
        # Their racks let them wait for long: they may fetch from others what their racks have.
        self.rack_exempt = 0
        self.places: dict[str, int] = {}
        # Rate of a transfer between any two nodes, as lately seen, bytes/s.
        self.typical_rate: float | None = None
        # From a grant to a node that is free until its transfer begins, and the way of the report that says so.
        self.reaction_s = settings.reaction_s
        self.reaction_s = settings.reaction_s
        # The rate of a transfer of a whole piece, and how many told it.
        self.pace_rate = 0.0
        self.paced = 0
        self.swarms: dict[int, Swarm] = {}
        self.plans: dict[int, OriginPlan] = {}
        # Swarms in which nobody waits for a client; and nodes (mask) to which something is to be leased of the others,
        # -1 where that is to be found out anew in this event.
        self.preheats: dict[int, Swarm] = {}
        self.pulling = 0
        # The limit of what a node is sent of preheats, bytes/s, 0.0 for none; nodes (mask) that have had their share.
        self.preheat_rate = 0.0
        self.preheats_rest = 0
        # Whether an origin is asked for any of the others; -1: the same.
        self.pull_fetches = 0
        self.leases: dict[int, Lease] = {}
        self.timers = Timers()
        self.stories = Stories(settings.story_length)
        self.commands: list[Command] = []
        self.counters = dict.fromkeys(COUNTED, 0)
        self.last_lease = 0
        self.last_fetch = 0
        # Fetches from the origin in flight, and swarms that travel inline.
        self.fetches = 0
        self.inline_swarms = 0
        # Of any open swarm.
        self.largest_piece_bytes = 0
        self.origin_pace = OriginPace()
        # The supernode's own store.
        up, down = Link(self.up, seed_upload_slots, seed_upload_rate), Link(self.down, seed_download_slots, None)
        self.seed = self.join(SEED, "", up, down)

    # --- nodes -----------------------------------------------------------------------------------------------

    def join(self, peer: int, zone: str, up: Link, down: Link) -> Node:
        """Enter a node, which must not be known, without room: rules.admission finds whether it has any."""
        assert peer not in self.nodes
        if self.free_rows:
            row = self.free_rows.pop()
        else:
            row = len(self.rows)
            self.rows.append(None)
        node = Node(peer, row, places_of(zone), up, down)
        self.rows[row] = node
        self.nodes[peer] = node
        for place in node.places:
            self.places[place] = self.places.get(place, 0) | node.bit
        return node

    def leave(self, node: Node) -> None:
        """Forget a node that has no lease and no membership left."""
        del self.nodes[node.peer]
        self.rows[node.row] = None
        self.free_rows.append(node.row)
        clear = ~node.bit
        for link in (node.up, node.down):
            link.direction.forget(link)
        self.deprioritized &= clear
        self.rack_exempt &= clear
        self.preheats_rest &= clear
        for place in node.places:
            left = self.places[place] & clear
            if left:
                self.places[place] = left
            else:
                del self.places[place]
        for other in self.nodes_of(node.blocked_receivers):
            other.blocked_sources &= clear
        self.blocked_sources &= clear
        for other in self.nodes_of(node.blocked_sources):
            self._drop_blocked_receiver(other, node)

    def at(self, row: int) -> Node:
        """The node of a row that is in use."""
        node = self.rows[row]
        assert node is not None, f"row {row} is empty"
        return node

    def nodes_of(self, mask: int) -> list[Node]:
        """The nodes of a mask, by row."""
        return [self.at(row) for row in indices(mask)]

    def wake_receivers(self, mask: int) -> None:
        """Look for sources for these nodes."""
        for node in self.nodes_of(mask):
            node.down.wake()

    def sources_for(self, node: Node) -> int:
        """Nodes with upload room that the node may fetch from."""
        return self.up.room & ~(node.bit | node.blocked_sources)

    def block(self, receiver: Node, source: Node) -> None:
        """Let the receiver fetch nothing from this source until unblock."""
        receiver.blocked_sources |= source.bit
        source.blocked_receivers |= receiver.bit
        self.blocked_sources |= source.bit

    def unblock(self, receiver: Node, source: Node) -> None:
        """End of block."""
        receiver.blocked_sources &= ~source.bit
        self._drop_blocked_receiver(source, receiver)

    def _drop_blocked_receiver(self, source: Node, receiver: Node) -> None:
        source.blocked_receivers &= ~receiver.bit
        if not source.blocked_receivers:
            self.blocked_sources &= ~source.bit

    # --- leases ----------------------------------------------------------------------------------------------

    def add_lease(self, member: Member, piece: int, source: Node) -> Lease:
        """A new lease in all lists: of the machine, of both links, of the member. Its piece stays as it was."""
        self.last_lease += 1
        number = self.epoch << ID_BITS | self.last_lease
        lease = Lease(number, member, piece, source, self.now, member.swarm.inline and source.peer == SEED)
        self.leases[number] = member.node.down.leases[number] = source.up.leases[number] = lease
        member.grants += 1
        racing = member.leases.get(piece)
        if racing is None:
            member.leases[piece] = [lease]
        else:
            racing.append(lease)
        return lease

    def remove_lease(self, lease: Lease) -> bool:
        """Take it out of all lists; True: no other lease races for its piece."""
        del self.leases[lease.number]
        lease.due_s = NO_TIMER
        for link in lease.links:
            del link.leases[lease.number]
        racing = lease.member.leases[lease.piece]
        if len(racing) == 1:
            del lease.member.leases[lease.piece]
            return True
        racing.remove(lease)
        return False

    def release_first_copy(self, lease: Lease) -> None:
        """The seed need wait for this copy no longer: it has come, or is not counted on any more."""
        if lease.first_copy:
            lease.first_copy = False
            lease.member.swarm.first_copy_pending &= ~(1 << lease.piece)
            self.seed.up.wake()

    # --- what is told ----------------------------------------------------------------------------------------

    def record(self, swarm: int, piece: int, text: str, *values: object) -> None:
        """Remember `text % values` in the story of a piece, or of the WHOLE swarm."""
        self.stories.tell(self.now, swarm, piece, text, *values)
