"""A lease as a record: which piece goes from where to where, and what it waits for. No behaviour; see leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.swarm import Member

# No time is before the start of the clock.
NO_TIMER: Final = -1.0


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
        "started_at",
        "stuck",
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
        # The slower of both ends' whole links as far as known, bytes/s; FILLS while neither is.
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
        # Overdue, and given up on: nothing is granted to follow it.
        self.stuck = False
        # The piece is `awaited` by way of this lease; see Swarm.
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
