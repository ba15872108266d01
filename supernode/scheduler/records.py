"""The records: nodes with their links, swarms with their members, leases, and how a swarm stands with its origin.

Fields, what each means, and what can be told from them alone: what a link carries (rule 5) and whether it has room
(rule 2), which nodes have links about as fast. They refer to one another, so they stand together. Who may change them:
copies (which piece is where), state (which node is blocked) and the rules.

What goes both ways stands once, by direction: the links of a node, the transfers at both ends of a lease.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Final, TypeAlias

from supernode.scheduler.contract import SEED
from supernode.scheduler.rarity import Rarity
from supernode.scheduler.settings import (
    BESIDE_STALLED_FACTOR,
    FILLED_PART,
    FILLED_PART_LEARNED,
    IDLE_PART_MAX,
    NEAR_BANDS,
    STALLED_MAX,
    SURE_SAMPLES,
)

if TYPE_CHECKING:
    from proto.pieces import PieceLayout

# The row of the supernode's own store, as a mask of nodes.
SEED_BIT: Final = 1
# No time is before the start of the clock.
NO_TIMER: Final = -1.0
# The two directions: of an uplink and the source of a lease, of a downlink and its receiver.
UP: Final = 0
DOWN: Final = 1


# A lease to grant: to whom, which piece, from whom.
Choice: TypeAlias = "tuple[Member, int, Node]"


class Direction:
    """The links of one direction of all nodes, as masks of nodes."""

    def __init__(self, way: int) -> None:
        # UP or DOWN.
        self.way = way
        # Nodes whose link could carry one transfer more, and those whose link carries none at all.
        self.room = 0
        self.idle = 0
        # By band of rates the nodes whose link's rate is known.
        self.bands: dict[int, int] = {}
        # Links that the event touched, in order: a transfer is looked for before it is done.
        self.woken: list[Link] = []

    def take_woken(self) -> list[Link]:
        """Those that were woken; from now on others are."""
        woken, self.woken = self.woken, []
        for link in woken:
            link.woken = False
        return woken

    def list_by_rate(self, link: Link) -> None:
        """List the link's node by how fast the link is, after something was learned of it."""
        rate = link.own_speed()
        self._move(link, _band_of(rate) if rate else None)

    def forget(self, link: Link) -> None:
        """The link's node is lost."""
        if link.woken:
            self.woken.remove(link)
        self.room &= ~link.node.bit
        self.idle &= ~link.node.bit
        self._move(link, None)

    def _move(self, link: Link, band: int | None) -> None:
        if band == link.band:
            return
        bit = link.node.bit
        if link.band is not None:
            self.bands[link.band] ^= bit
            if not self.bands[link.band]:
                del self.bands[link.band]
        if band is not None:
            self.bands[band] = self.bands.get(band, 0) | bit
        link.band = band

    def alike(self, nodes: int, other_end: Link) -> int:
        """Those of the nodes whose links are about as fast as the one at the other end.

        With a link that may be faster than it was seen to be, those that are not known to be slower: else it would only
        ever be seen to be as slow.
        """
        own = other_end.own_speed()
        rate = own or other_end.speed()
        if not rate or not self.bands:
            return nodes
        band = _band_of(rate)
        slower = near = 0
        for other, of_band in self.bands.items():
            if other < band - NEAR_BANDS:
                slower |= of_band
            elif other <= band + NEAR_BANDS:
                near |= of_band
        return nodes & near if own else nodes & ~slower


def _band_of(rate: float) -> int:
    """Rates in bands of half an octave, so that nodes with links about as fast can be found by masks."""
    return round(2.0 * log2(rate))


class Link:
    """One direction of a node's bandwidth: chains of transfers over it (a running one, at most one that waits behind
    it), and what it is believed to carry. Rates are bytes/s. Changed by rules.admission and rules.link_rates.
    """

    # Read many times a lease: interpreted, a tenth less time.
    __slots__ = (
        "area", "area_at", "assumed", "band", "blocked_until", "bottleneck_samples", "carries", "chains",
        "declared", "direction", "ended_at", "ending", "has_room", "idle", "idle_part", "leases", "measured",
        "node", "rated", "running", "slots", "stalled", "used", "way", "woken",
    )  # fmt: skip

    def __init__(self, direction: Direction, slots: int, declared: float | None) -> None:
        self.direction = direction
        self.way = direction.way
        # Set when the node is made of its links.
        self.node: Node
        self.slots = slots
        self.declared = declared
        # Bytes/s that it was lately seen to carry; None until a transfer ended.
        self.carries: float | None = None
        # Transfers that it was learned from, and whether one of them was long enough to be believed.
        self.measured = 0
        self.rated = False
        # Transfers at about that rate of which this link was the bottleneck, as the other end could have done more;
        # those whose other end could have done far more count as many as it takes.
        self.bottleneck_samples = 0
        # Bytes/s that it is assumed to carry until transfers tell; 0.0: nothing is known.
        self.assumed = 0.0
        # The band that it is listed under in its direction; None while its rate is not known.
        self.band: int | None = None
        # Lease id to lease, inline ones included.
        self.leases: dict[int, Lease] = {}
        self.chains = 0
        # Of its leases those that are overdue and not counted on any more.
        self.stalled = 0
        # What the other ends of its transfers could take or give together, at most its own rate each.
        self.used = 0.0
        # Transfers predicted to end shortly with none behind them yet.
        self.ending: list[Lease] = []
        # Transfers started and not ended, and the integral of their number over time, as it was at `area_at`.
        self.running = 0
        self.area = 0.0
        self.area_at = 0.0
        # When its last transfer ended, and for what part of a transfer's time it lately stood idle although the
        # next one had been granted by then.
        self.ended_at = 0.0
        self.idle_part = 0.0
        # Nothing is granted over it until then; 0.0 if nothing keeps it.
        self.blocked_until = 0.0
        # Whether it is in its direction's masks, and in its list of those that were woken.
        self.has_room = False
        self.idle = False
        self.woken = False

    def wake(self) -> None:
        """Look for a transfer over it before the event is done."""
        if not self.woken:
            self.woken = True
            self.direction.woken.append(self)

    def let_sleep(self) -> bool:
        """Whether it was woken; it is not any more."""
        if not self.woken:
            return False
        self.direction.woken.remove(self)
        self.woken = False
        return True

    # --- what it carries, bytes/s; 0.0 where that is not known ---

    def speed(self) -> float:
        """Rate of the whole link as far as known."""
        return self.declared or self.carries or 0.0

    def assumed_speed(self) -> float:
        """The same, or what it is assumed to carry if that is more."""
        return self.declared or max(self.carries or 0.0, self.assumed)

    def own_speed(self) -> float:
        """Its rate, but 0.0 while the other ends may have been the bottleneck of all its transfers."""
        if self.declared is not None:
            return self.declared
        return self.carries if self.carries is not None and self.bottleneck_samples >= SURE_SAMPLES else 0.0

    def trusted_speed(self, slow: float) -> float:
        """The same, but a rate below `slow` is trusted at once.

        Taken for slower than it is, a node is served beside others, and so it is slower.
        """
        return self.own_speed() or (self.carries if self.carries is not None and self.carries < slow else 0.0)

    def share_of(self, lease: Lease) -> float:
        """What the transfer's other end could take or give of this link's rate; all of it while unknown."""
        return min(lease.share, self.declared) if self.declared is not None else lease.share

    # --- whether it has room: rule 2, level by level ---

    def room_now(self) -> bool:
        """Whether one more transfer could start at once."""
        if self.chains == 0:
            return self.slots > 0
        if not self._slot_is_free():
            return False
        if self.chains == 1 and self.idle_part > IDLE_PART_MAX:
            return True
        return self.used < self._filled()

    def _slot_is_free(self) -> bool:
        """At a source a transfer that is overdue keeps none from others, as at the upload ports, up to a limit.

        A receiver that never got anything, or nothing since a lease of its expired, may have few of them: it may be
        taking nothing at all.
        """
        if self.way == UP:
            return self.chains - self.stalled < self.slots and self.chains < BESIDE_STALLED_FACTOR * self.slots
        return self.chains < self.slots and (self.stalled < STALLED_MAX or self.node.receives)

    def room(self) -> bool:
        """Whether one more transfer could start at once or right after one that is about to end."""
        return self.to_follow() is not None or self.room_now()

    def room_for_two(self) -> bool:
        """Whether a transfer started now would leave room for another."""
        one = self.used / self.chains if self.chains else self.speed()
        return self.chains + 2 <= self.slots and self.used + one < self._filled()

    def to_follow(self) -> Lease | None:
        """The transfer that another may follow: about to end, and what else runs then does not fill the link."""
        if self.chains <= 1:
            return self.ending[0] if self.ending else None
        for lease in self.ending:
            if self.used - self.share_of(lease) < self._filled():
                return lease
        return None

    def _filled(self) -> float:
        """From which use on it takes no more transfers, bytes/s."""
        if self.declared is not None:
            return FILLED_PART * self.declared
        return FILLED_PART_LEARNED * max(self.carries or 0.0, self.assumed)


class Node:
    """A peer as the scheduler sees it; the seed is one. Not the shell's session with it."""

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
        up.node = down.node = self
        self.quarantined = False
        self.faults = 0
        # Whether anybody ever got a piece from it, and how often it failed before.
        self.served = peer == SEED
        self.unserved_failures = 0
        # Whether it ever got a piece, and leases to it that expired since one ended well.
        self.received = False
        self.timeouts = 0
        # By source, failed leases in a row since one ended well; those of the last sources.
        self.failures: dict[int, int] = {}
        # Until when it waits for its rack; None while it is being served.
        self.rack_wait_until: float | None = None
        # Until when what it was last sent of preheats fills its share.
        self.preheats_from = 0.0
        # Nodes (mask) that it is not to fetch from for now, and nodes that are not to fetch from it.
        self.blocked_sources = 0
        self.blocked_receivers = 0
        # Swarm number to membership; `wanting` those with something left to lease, in rotation.
        self.members: dict[int, Member] = {}
        self.wanting: dict[int, Member] = {}

    @property
    def receives(self) -> bool:
        """Whether it got something, and no lease to it expired since."""
        return self.received and not self.timeouts

    def wake(self) -> None:
        """Look for work for this node, both ways."""
        self.up.wake()
        self.down.wake()


class Member:
    """One node's part in one swarm. A piece is HELD (`have`), LEASED or MISSING (the rest): see copies."""

    def __init__(self, swarm: Swarm, node: Node) -> None:
        self.swarm = swarm
        self.node = node
        # Masks of pieces; `have` and `leased` never overlap.
        self.have = 0
        self.leased = 0
        # What may still be leased to it: MISSING, if it wants the blob.
        self.need = 0
        self.wanted = False
        # No client waits for it there.
        self.background = False
        # Of what is MISSING it wants no more than `asked`: what its clients wait for who read ranges.
        self.ranges = False
        self.asked = 0
        # Piece to its leases: one, or two while two sources race.
        self.leases: dict[int, list[Lease]] = {}
        # The first piece that a client waits for.
        self.reader: int | None = None
        self.grants = 0
        # Pieces that the seed sent it before anybody else.
        self.first_copies = 0


class Swarm:
    """All that goes on for one blob, as masks both ways: pieces of a node, nodes of a piece."""

    def __init__(self, number: int, layout: PieceLayout, inline: bool) -> None:
        self.number = number
        self.layout = layout
        self.inline = inline
        self.full = layout.full_mask
        self.count = count = layout.count
        # By peer, and the same by the row of its node.
        self.members: dict[int, Member] = {}
        self.at_row: dict[int, Member] = {}
        # Piece to nodes it can be had from (quarantined ones excluded), and to nodes whose `need` has it; and the
        # pieces for which there is any such node.
        self.holders = [0] * count
        self.lacking = [0] * count
        self.held_by_any = 0
        self.needed_by_any = 0
        # Pieces LEASED to members other than the seed, over all of them.
        self.leased_to_peers = 0
        # Pieces that no peer holds and whose first copy will soon be at one: the seed sends no further copy of them.
        self.first_copy_pending = 0
        # Nodes that are not counted on for what no other holds: they give it to nobody.
        self.given_up = 0
        # Nodes that anything can be had from, and that need anything.
        self.holding = 0
        self.wanting = 0
        # Nodes that want it for a client, whether or not anything is left to lease.
        self.pulling = 0
        self.rarity = Rarity(count)
        # Pieces that some member asks for by ranges, held or not.
        self.asked = 0
        # Pieces asked of the origin and not here yet.
        self.fetching = 0
        self.evicted_by_seed = 0
        # Pieces that go from peer to peer though nobody vouches for them.
        self.unvouched = 0
        # Rack to its members, to pieces that some of them hold, and to pieces on their way into it as its first copy;
        # piece to the nodes of racks that hold it or are being sent it: they take it from nowhere else.
        self.rack_nodes: dict[str, int] = {}
        self.rack_have: dict[str, int] = {}
        self.rack_inbound: dict[str, int] = {}
        self.in_rack = [0] * count

    @property
    def seed(self) -> Member:
        """The supernode's own membership."""
        return self.members[SEED]

    def of_rack(self, rack: str) -> int:
        """Pieces that the rack has or that are on their way into it."""
        return self.rack_have.get(rack, 0) | self.rack_inbound.get(rack, 0)


class Lease:
    """One piece on its way from `source` to `receiver`. An inline one travels in the grant and takes no slot.

    Lists of two are by direction: [UP] is of the source's uplink, [DOWN] of the receiver's downlink.
    """

    # Read many times a lease: interpreted, a tenth less time.
    __slots__ = (
        "after", "area", "before", "due_s", "duration_s", "ending", "expires_in_s", "first_copy", "granted_at",
        "inline", "links", "member", "number", "overdue", "piece", "rack_first", "receiver", "share", "size_bytes",
        "source", "stalled", "started_at",
    )  # fmt: skip

    def __init__(self, number: int, member: Member, piece: int, source: Node, now: float, inline: bool) -> None:
        self.number = number
        self.member = member
        self.receiver = member.node
        self.source = source
        self.links = (source.up, member.node.down)
        self.piece = piece
        self.size_bytes = member.swarm.layout.length(piece)
        self.inline = inline
        self.granted_at = now
        self.started_at: float | None = None
        # What it can take of a link: the slower of both ends' whole links as far as known, bytes/s;
        # UNLIMITED_BYTES_S while neither is.
        self.share = 0.0
        # Predicted time of the transfer, None while nothing is measured.
        self.duration_s: float | None = None
        self.expires_in_s = 0.0
        # When its one valid timer surfaces; negative while there is none.
        self.due_s = NO_TIMER
        # Predicted to end shortly: one lease may follow it over this link.
        self.ending = [False, False]
        # Later than predicted by so much that a second source may race it.
        self.overdue = False
        # Overdue, and its links are not counted on any more: nothing is granted to follow it.
        self.stalled = False
        # The piece's first copy is pending by way of this lease; see Swarm.
        self.first_copy = False
        # The transfer that it waits for on this link, and the one that waits for it.
        self.before: list[Lease | None] = [None, None]
        self.after: list[Lease | None] = [None, None]
        # Link.area when it started.
        self.area = [0.0, 0.0]
        # The rack for which it is the first copy on its way.
        self.rack_first: str | None = None


class OriginPlan:
    """How one swarm stands with its origin; see rules.origin_fetches."""

    def __init__(self, recover_until: float, recover_peers: tuple[int, ...]) -> None:
        # The fetch in flight (0: none) and the pieces it was asked for.
        self.fetch_id = 0
        self.asked = 0
        # It was told to end, for other pieces: that is no failure.
        self.ending = False
        self.failures = 0
        self.retry_at = 0.0
        self.elected: int | None = None
        self.elected_until = 0.0
        # Peers elected since the origin last failed, in order.
        self.tried: list[int] = []
        self.opened = False
        # Peers that held pieces before a restart and may still come back with them, and until when.
        self.recover_until = recover_until
        self.recover_peers = dict.fromkeys(recover_peers)
        # By peer what it offers though nobody vouches for it: pieces it holds, those it fetches by itself, until when.
        self.offers: dict[int, tuple[int, int, float]] = {}
