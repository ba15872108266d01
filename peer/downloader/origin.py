"""Rules for this node's own fetches from an origin: when it may ask, for which pieces, and what their end means.

With a supernode a node asks when it is elected. The nodes share the origin out when the supernode opened it to all,
when nothing comes although the supernode is there, and without one after a grace that counts from the session's end.
The owners of a blob (proto.owners) then ask for spans of what nobody they know holds, and all others take it from
them. Who comes next in a span's order tries it when nothing of the blob turned up for a while. One fetch a blob at a
time, for what clients read or what rotted here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from peer.downloader import private
from peer.downloader.blob import StoreState, Upstream
from peer.downloader.contract import FetchUpstream, LeaveOrigin, UpstreamEnded, UpstreamPiece
from peer.downloader.leases import piece_held, store_trouble
from proto.errors import UpstreamKind
from proto.owners import OWNERS_MAX, place, span_pieces
from proto.pieces import first_missing
from proto.wire.messages import NO_READER, OriginStatus, OriginTried

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.state import State
    from proto.ids import Digest, PeerName

CANCELLED: Final = "cancelled"
LOCAL: Final = "local"
# What an origin says to a credential, and not of itself.
_REFUSED: Final = (UpstreamKind.DENIED.value, UpstreamKind.UNKNOWN.value)


def origin_status(state: State, event: OriginStatus) -> Blob | None:
    """How the supernode's own fetch goes, or the swarm after it. A report of either is progress."""
    blob = state.swarms.get(event.swarm)
    if blob is None:
        return None
    if event.state != blob.origin_state or event.elected != blob.elected:
        state.note(blob, f"origin {event.state}{' and this node is elected' if event.elected else ''}")
    if event.state == "open" != blob.origin_state:
        blob.starved, blob.found_at = True, state.now
    goes_on = event.elected and event.state == "fetching"
    blob.origin_state, blob.elected = event.state, event.elected and not goes_on
    blob.elected_pieces = int.from_bytes(event.pieces, "little") & blob.full if event.pieces else blob.full
    if event.retry_after_s > 0.0:
        blob.origin_free_at = state.now + event.retry_after_s
        state.emit(LeaveOrigin(blob.digest, tuple(blob.sources), event.retry_after_s))
        state.stop_upstream(blob)
    if event.state in ("sharing", "fetching", "queued", "unreachable"):
        # Others get on, or are about to; this node has nothing of that yet.
        blob.moved_at = state.now
    if event.state in ("fetching", "unreachable") and not event.elected:
        state.stop_upstream(blob)
    elif blob.elected and not _has_source(blob):
        state.send(OriginTried(event.swarm, UpstreamKind.UNAVAILABLE.value))
        blob.elected = False
    return blob


def _has_source(blob: Blob) -> bool:
    return blob.layout is not None and (blob.lender is not None if blob.private else blob.place is not None)


def may_ask(state: State, blob: Blob) -> bool:
    """Whether this node may ask the origin for this blob now."""
    if not state.sharing or state.now < blob.origin_free_at:
        return False
    if blob.alone:
        return blob.being_read
    if state.connected:
        return blob.elected or (blob.starved and blob.needed_here and blob.origin_state != "fetching")
    return blob.needed_here and state.now >= asks_from(state, blob)


def plan_upstream(state: State, blob: Blob) -> None:
    """Begin a fetch of what is missing and nobody known holds, where that is allowed and none runs."""
    if blob.upstream is not None and blob.asked & ~blob.leased_by_peers and blob.upstream.pieces & ~blob.asked:
        # What is read by ranges comes before the rest.
        state.stop_upstream(blob)
    if not may_ask(state, blob) or blob.upstream is not None or blob.store is not StoreState.OPEN:
        return
    if blob.check or not _has_source(blob):
        return
    pieces = blob.missing & ~blob.leased
    if blob.elected:
        pieces &= blob.elected_pieces
    if not state.connected and not blob.alone:
        pieces &= ~(blob.holders.reachable() & state.takeable(blob))
    if blob.holders.known and not blob.elected and not blob.alone:
        pieces = _span_in_turn(state, blob, pieces)
    pieces = pieces & blob.asked or pieces
    if not pieces:
        if blob.elected and not blob.missing & blob.elected_pieces:
            _tried(state, blob, "")
        return
    first = blob.first_read if blob.first_read != NO_READER else first_missing(~pieces)
    lender = blob.lender if blob.private else None
    source, reader = (lender.source, lender.reader) if lender is not None else (blob.place, 0)
    assert source is not None
    upstream = Upstream(state.new_id(), pieces, blob.elected, reader)
    blob.upstream = upstream
    state.owners[upstream.fetch] = blob
    state.note(blob, f"upstream fetch {upstream.fetch} of {pieces.bit_count()} pieces from {first} on")
    state.emit(FetchUpstream(upstream.fetch, blob.digest, source, pieces, first, reader, _why(state, blob)))


def _why(state: State, blob: Blob) -> str:
    if blob.alone:
        return "not_shared"
    if not state.connected:
        return "no_supernode"
    return "elected" if blob.elected else "open"


def asks_from(state: State, blob: Blob) -> float:
    """Without a supernode: when this node may ask the origin at all."""
    first = state.upstream_from
    if not blob.being_read:
        # What rotted here can wait for a session that is about to open: this node may just have started.
        first = max(first, blob.progress_at + state.limits.grace_s)
    if not blob.holders.known:
        return first + state.jitter_s
    # The grace is long enough to have asked every holder once; one that is named later is asked first.
    waits = blob.ticketed and blob.holders.undecided()
    return first + (state.limits.refresh_s if waits else 0.0)


def next_turn_at(state: State, blob: Blob) -> float:
    """The next time at which a turn at the origin can come to this node by time alone."""
    first = max(blob.origin_free_at, asks_from(state, blob) if not state.connected else 0.0)
    if state.now < first:
        return first
    if not blob.holders.known or not may_ask(state, blob):
        return float("inf")
    return _turns_begin(state, blob) + (_turn(state, blob) + 1) * _turn_s(state, blob)


def _turns_begin(state: State, blob: Blob) -> float:
    return max(blob.found_at, blob.progress_at if state.connected else state.upstream_from)


def _turn(state: State, blob: Blob) -> int:
    """Whose turn it is: 0 is the first in a span's order, 1 the next, who comes when nothing turned up, and so on."""
    return int((state.now - _turns_begin(state, blob)) / _turn_s(state, blob) + 1e-9)


def _turn_s(state: State, blob: Blob) -> float:
    assert blob.layout is not None
    limits = state.limits
    return max(limits.turn_s, OWNERS_MAX * blob.layout.piece_size_bytes / limits.standalone_rate_min_bytes_s)


def _span_in_turn(state: State, blob: Blob, pieces: int) -> int:
    """Of these pieces (mask) the first span, from the reader's place, at which this node's turn has come."""
    assert blob.layout is not None
    owners, turn = blob.holders.owners(state.name, state.seed), _turn(state, blob)
    length = span_pieces(blob.layout.count)
    if state.name not in owners and turn < len(owners):
        return 0
    spans = -(-blob.layout.count // length)
    begin = max(0, blob.first_read) // length
    for span in (*range(begin, spans), *range(begin)):
        wanted: int = pieces & ((1 << length) - 1 << span * length)
        if not wanted:
            continue
        order = sorted(owners, key=partial(_place, blob.digest, span))
        if state.name not in owners or order.index(state.name) <= turn:
            return wanted
    return 0


def _place(digest: Digest, span: int, owner: PeerName) -> bytes:
    return place(digest, owner, span)


def upstream_piece(state: State, event: UpstreamPiece) -> Blob | None:
    """A piece of this node's own fetch is in the store."""
    blob = state.owners.get(event.fetch)
    if blob is None or blob.upstream is None or blob.upstream.voided:
        return blob
    blob.upstream.pieces &= ~(1 << event.piece)
    if blob.layout is not None and 0 <= event.piece < blob.layout.count:
        piece_held(state, blob, event.piece, claim=event.piece_hash if blob.upstream.elected else b"")
    return blob


def upstream_ended(state: State, event: UpstreamEnded) -> Blob | None:
    """This node's own fetch is over: plan on, or send the clients to the origin."""
    blob = state.owners.pop(event.fetch, None)
    upstream = blob.upstream if blob is not None else None
    if blob is None or upstream is None or upstream.fetch != event.fetch:
        return blob
    blob.upstream = None
    blob.progress_at = state.now
    state.note(blob, f"upstream fetch {event.fetch} ended: {event.reason or 'done'}")
    if upstream.voided:
        return blob
    if event.reason == LOCAL:
        _tried(state, blob, UpstreamKind.UNAVAILABLE.value)
        store_trouble(state, blob, event.message or "the store could not take a piece")
    elif upstream.reader and event.reason in _REFUSED:
        _credential_refused(state, blob, upstream, event.reason)
    elif event.retry_after_s and state.connected and not blob.alone:
        # The supernode asks again in time, for all.
        blob.origin_free_at = state.now + event.retry_after_s
        _tried(state, blob, event.reason, event.retry_after_s)
    elif event.reason and event.reason != CANCELLED:
        _tried(state, blob, event.reason)
        if state.connected and blob.swarm and not (upstream.elected or blob.starved):
            return blob  # the swarm sees to the rest
        state.fail_readers(blob, f"upstream: {event.reason}")
        if not state.connected:
            blob.wanted = any(not reader.failed for reader in blob.readers.values())
    elif not blob.missing or not (event.reason or blob.elected):
        _tried(state, blob, "")
    return blob


def _credential_refused(state: State, blob: Blob, upstream: Upstream, reason: str) -> None:
    private.credential_refused(state, blob, upstream.reader)
    if upstream.elected and blob.lender is None:
        # Another node's turn, with a client of its own.
        _tried(state, blob, reason)


def _tried(state: State, blob: Blob, reason: str, retry_after_s: float = 0.0) -> None:
    """This node's own fetch is over, and that is reported: it may be elected, or waited for."""
    if blob.swarm:
        state.send(OriginTried(blob.swarm, reason, retry_after_s))
    blob.elected = False
