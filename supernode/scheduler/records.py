"""The records: nodes with their links, swarms with their members, leases, and how a swarm stands with its origin.

Fields and what each means; no behaviour. They refer to one another, so they stand together. Who may change them:
copies (which piece is where), state (which node has room, is blocked, is waited for) and the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from supernode.scheduler.contract import SEED
from supernode.scheduler.rarity import Rarity

if TYPE_CHECKING:
    from proto.pieces import PieceLayout

# The row of the supernode's own store, as a mask of nodes.
SEED_BIT: Final = 1
# No time is before the start of the clock.
NO_TIMER: Final = -1.0


class Link:
    """One direction of a node's bandwidth: chains of transfers over it (a running one, at most one that waits behind
    it), and what it is believed to carry. Rates are bytes/s. See rules.admission and rules.link_rates.
    """

    __slots__ = (
        "area",
        "area_at",
        "assumed",
        "bottleneck_samples",
        "carries",
        "chains",
        "declared",
        "ended_at",
        "ending",
        "idle_part",
        "measured",
        "running",
        "slots",
        "used",
    )

    def __init__(self, slots: int, declared: float | None) -> None:
        self.slots = slots
        self.declared = declared
        # Bytes/s that it was lately seen to carry; None until a transfer ended.
        self.carries: float | None = None
        # Transfers that it was learned from.
        self.measured = 0
        # Transfers at about that rate of which this link was the bottleneck, as the other end could have done more;
        # those whose other end could have done far more count as many as it takes.
        self.bottleneck_samples = 0
        # Bytes/s that it is assumed to carry until transfers tell; 0.0: nothing is known.
        self.assumed = 0.0
        self.chains = 0
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


class Node:
    """A peer as the scheduler sees it; the seed is one. Not the shell's session with it."""

    __slots__ = (
        "bit",
        "blocked_receivers",
        "blocked_sources",
        "down",
        "down_band",
        "download_blocked_until",
        "download_idle",
        "faults",
        "has_download_room",
        "has_upload_room",
        "leases_in",
        "leases_out",
        "members",
        "peer",
        "places",
        "quarantined",
        "rack",
        "rack_wait_until",
        "row",
        "timeouts",
        "up",
        "up_band",
        "upload_blocked_until",
        "upload_idle",
        "wanting",
        "woken_as_receiver",
        "woken_as_source",
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
        # The bands that its links' rates are listed under in the state; None while they are not known.
        self.up_band: int | None = None
        self.down_band: int | None = None
        self.quarantined = False
        # Whether it is in the state's masks upload_room, download_room, upload_idle and download_idle.
        self.has_upload_room = False
        self.has_download_room = False
        self.upload_idle = False
        self.download_idle = False
        # Whether the state lists it as woken.
        self.woken_as_source = False
        self.woken_as_receiver = False
        self.faults = 0
        # Leases to it that expired since one ended well.
        self.timeouts = 0
        self.upload_blocked_until = 0.0
        self.download_blocked_until = 0.0
        # Until when it waits for its rack; None while it is being served.
        self.rack_wait_until: float | None = None
        # Nodes (mask) that it is not to fetch from for now, and nodes that are not to fetch from it.
        self.blocked_sources = 0
        self.blocked_receivers = 0
        # Swarm number to membership; `wanting` those with something left to lease, in rotation.
        self.members: dict[int, Member] = {}
        self.wanting: dict[int, Member] = {}
        # Lease id to lease, inline ones included.
        self.leases_in: dict[int, Lease] = {}
        self.leases_out: dict[int, Lease] = {}


class Member:
    """One node's part in one swarm. A piece is HELD (`have`), LEASED or MISSING (the rest): see copies."""

    __slots__ = ("first_copies", "grants", "have", "leased", "leases", "need", "node", "reader", "swarm", "wanted")

    def __init__(self, swarm: Swarm, node: Node) -> None:
        self.swarm = swarm
        self.node = node
        # Masks of pieces; `have` and `leased` never overlap.
        self.have = 0
        self.leased = 0
        # What may still be leased to it: MISSING, if it wants the blob.
        self.need = 0
        self.wanted = False
        # Piece to its leases: one, or two while two sources race.
        self.leases: dict[int, list[Lease]] = {}
        # The first piece that a client waits for.
        self.reader: int | None = None
        self.grants = 0
        # Pieces that the seed sent it before anybody else.
        self.first_copies = 0


class Swarm:
    """All that goes on for one blob, as masks both ways: pieces of a node, nodes of a piece."""

    __slots__ = (
        "at_row",
        "count",
        "evicted_by_seed",
        "fetching",
        "first_copy_pending",
        "full",
        "held_by_any",
        "holders",
        "holding",
        "in_rack",
        "inline",
        "lacking",
        "last_bytes",
        "layout",
        "leased_to_peers",
        "members",
        "needed_by_any",
        "number",
        "piece_bytes",
        "rack_have",
        "rack_inbound",
        "rack_nodes",
        "rarity",
        "wanting",
    )

    def __init__(self, number: int, layout: PieceLayout, inline: bool) -> None:
        self.number = number
        self.layout = layout
        self.inline = inline
        self.full = layout.full_mask
        self.count = count = layout.count
        self.piece_bytes = layout.piece_size_bytes
        self.last_bytes = layout.length(count - 1)
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
        # Nodes that anything can be had from, and that need anything.
        self.holding = 0
        self.wanting = 0
        self.rarity = Rarity(count)
        # Pieces asked of the origin and not here yet.
        self.fetching = 0
        self.evicted_by_seed = 0
        # Rack to its members, to pieces that some of them hold, and to pieces on their way into it as its first copy;
        # piece to the nodes of racks that hold it or are being sent it: they take it from nowhere else.
        self.rack_nodes: dict[str, int] = {}
        self.rack_have: dict[str, int] = {}
        self.rack_inbound: dict[str, int] = {}
        self.in_rack = [0] * count

    def length(self, piece: int) -> int:
        """Bytes in the piece."""
        return self.piece_bytes if piece < self.count - 1 else self.last_bytes

    @property
    def seed(self) -> Member:
        """The supernode's own membership."""
        return self.members[SEED]


class Lease:
    """One piece on its way from `source` to `receiver`. An inline one travels in the grant and takes no slot."""

    __slots__ = (
        "after_down",
        "after_up",
        "area_down",
        "area_up",
        "before_down",
        "before_up",
        "due_s",
        "duration_s",
        "ending_down",
        "ending_up",
        "expires_in_s",
        "first_copy",
        "granted_at",
        "inline",
        "member",
        "number",
        "overdue",
        "piece",
        "rack_first",
        "receiver",
        "share",
        "size_bytes",
        "source",
        "stalled",
        "started_at",
    )

    def __init__(self, number: int, member: Member, piece: int, source: Node, now: float, inline: bool) -> None:
        self.number = number
        self.member = member
        self.receiver = member.node
        self.source = source
        self.piece = piece
        self.size_bytes = member.swarm.length(piece)
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
        # Predicted to end shortly: one lease may follow it at the receiver, and at the source.
        self.ending_down = False
        self.ending_up = False
        # Later than predicted by so much that a second source may race it.
        self.overdue = False
        # Overdue, and its links are not counted on any more: nothing is granted to follow it.
        self.stalled = False
        # The piece's first copy is pending by way of this lease; see Swarm.
        self.first_copy = False
        # The transfers it waits for at the source and at the receiver, and those that wait for it.
        self.before_up: Lease | None = None
        self.before_down: Lease | None = None
        self.after_up: Lease | None = None
        self.after_down: Lease | None = None
        # Link.area of both ends when it started.
        self.area_up = 0.0
        self.area_down = 0.0
        # The rack for which it is the first copy on its way.
        self.rack_first: str | None = None


class OriginPlan:
    """How one swarm stands with its origin; see rules.origin_fetches."""

    __slots__ = (
        "asked",
        "elected",
        "elected_until",
        "failures",
        "fetch_id",
        "once_ready",
        "opened",
        "recover_peers",
        "recover_until",
        "retry_at",
        "tried",
    )

    def __init__(self, once_ready: int, recover_until: float, recover_peers: tuple[int, ...]) -> None:
        # The fetch in flight (0: none) and the pieces it was asked for.
        self.fetch_id = 0
        self.asked = 0
        self.failures = 0
        self.retry_at = 0.0
        self.elected: int | None = None
        self.elected_until = 0.0
        # Peers elected since the origin last failed, in order.
        self.tried: list[int] = []
        self.opened = False
        # Pieces that were ready before a restart, and who may still come back with them, until when.
        self.once_ready = once_ready
        self.recover_until = recover_until
        self.recover_peers = dict.fromkeys(recover_peers)
