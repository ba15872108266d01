"""Rule 7, readers early: what a node's own client waits for next comes first, within a bounded share of its leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler.masks import lowest

if TYPE_CHECKING:
    from supernode.scheduler.records import Member
    from supernode.scheduler.settings import SchedulerSettings


def next_piece(settings: SchedulerSettings, member: Member, need: int, sources: int) -> int | None:
    """What the node's own client waits for next, when it is its turn and a source has it.

    What is read by ranges always comes first.
    """
    swarm = member.swarm
    for piece in indices(need & member.asked):
        if swarm.holders[piece] & sources:
            return piece
    if member.reader is None:
        return None
    if member.grants % settings.reader_grant_every and swarm.wanting != member.node.bit:
        return None
    window = need & ((1 << settings.reader_window_pieces) - 1) << member.reader
    for piece in indices(window):
        if swarm.holders[piece] & sources:
            return piece
    return None


def in_order(member: Member, pieces: int) -> int:
    """The lowest of equally rare pieces, from the reader's position on if a client reads; ranges come first."""
    pieces = pieces & member.asked or pieces
    if member.reader is not None:
        ahead = pieces >> member.reader
        if ahead:
            return member.reader + lowest(ahead)
    return lowest(pieces)
