"""Rules for this node's own fetches from an origin: when it may ask, for which pieces, and what their end means.

With a supernode a node asks only when elected, or when the supernode opened the origin to all. Without one it asks for
what nobody it knows holds, and not before the grace that counts once from the loss of the session. One fetch a blob at
a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.downloader.blob import StoreState, Upstream
from peer.downloader.contract import FetchUpstream, UpstreamEnded, UpstreamPiece
from peer.downloader.leases import piece_held, stop_upstream, store_trouble
from proto.errors import UpstreamKind
from proto.pieces import first_missing, mask_of
from proto.wire.messages import NO_READER, OriginStatus, OriginTried

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.state import State

CANCELLED: Final = "cancelled"
LOCAL: Final = "local"


def origin_status(state: State, event: OriginStatus) -> Blob | None:
    """How the supernode's own fetch goes, or the swarm after it. A report of either is progress."""
    blob = state.swarms.get(event.swarm)
    if blob is None:
        return None
    if event.state != blob.origin_state or event.elected != blob.elected:
        state.note(blob, f"origin {event.state}{' and this node is elected' if event.elected else ''}")
    blob.origin_state, blob.elected = event.state, event.elected
    if event.state == "sharing":
        blob.moved_at = state.now
    if event.state == "fetching":
        blob.progress_at = state.now
        stop_upstream(state, blob)
    elif event.elected and not _has_source(blob):
        state.send(OriginTried(event.swarm, UpstreamKind.UNAVAILABLE.value))
        blob.elected = False
    return blob


def _has_source(blob: Blob) -> bool:
    return bool(blob.sources) and blob.layout is not None


def may_ask(state: State, blob: Blob) -> bool:
    """Whether this node may ask the origin for this blob now."""
    if not state.sharing:
        return False
    if state.connected:
        return blob.elected or (blob.origin_state == "open" and blob.being_read)
    return blob.being_read and state.now >= state.upstream_from


def plan_upstream(state: State, blob: Blob) -> None:
    """Begin a fetch of what is missing and nobody known holds, where that is allowed and none runs."""
    if not may_ask(state, blob) or blob.upstream is not None or blob.store is not StoreState.OPEN:
        return
    if blob.check or not _has_source(blob):
        return
    pieces = blob.full & ~blob.held & ~blob.leased
    if not state.connected:
        # The grace is long enough to have asked every holder once; one that is named later is asked first.
        if blob.ticketed and blob.holders.undecided() and state.now < state.upstream_from + state.limits.refresh_s:
            return
        pieces &= ~(blob.holders.reachable() & blob.hashed)
    if not pieces:
        if blob.elected and blob.all_held:
            _tried(state, blob, "")
        return
    first = blob.first_read if blob.first_read != NO_READER else first_missing(~pieces)
    if not state.connected and blob.holders.known:
        pieces = _window(state, blob, pieces, first)
    upstream = Upstream(state.new_id(), pieces, blob.elected)
    blob.upstream = upstream
    state.owners[upstream.fetch] = blob
    state.note(blob, f"upstream fetch {upstream.fetch} of {pieces.bit_count()} pieces from {first} on")
    state.emit(FetchUpstream(upstream.fetch, blob.digest, blob.sources[0], pieces, first))


def _window(state: State, blob: Blob, pieces: int, first: int) -> int:
    """Only the next few, from the reader's place: the holders may come up with the rest meanwhile."""
    assert blob.layout is not None
    count = max(1, state.limits.upstream_window_bytes // blob.layout.piece_size_bytes)
    ordered = [piece for piece in range(first, blob.layout.count) if pieces >> piece & 1][:count]
    return mask_of(ordered) or pieces


def upstream_piece(state: State, event: UpstreamPiece) -> Blob | None:
    """A piece of this node's own fetch is in the store."""
    blob = state.owners.get(event.fetch)
    if blob is None or blob.upstream is None or blob.upstream.voided:
        return blob
    blob.upstream.pieces &= ~(1 << event.piece)
    if blob.layout is not None and 0 <= event.piece < blob.layout.count:
        piece_held(state, blob, event.piece, 0, 0.0)
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
    elif event.reason and event.reason != CANCELLED:
        _tried(state, blob, event.reason)
        state.fail_readers(blob, f"upstream: {event.reason}")
        if not state.connected:
            blob.wanted = any(not reader.failed for reader in blob.readers.values())
    elif blob.all_held:
        _tried(state, blob, "")
    return blob


def _tried(state: State, blob: Blob, reason: str) -> None:
    """The elected attempt is over and reported, once."""
    if blob.elected and blob.swarm:
        state.send(OriginTried(blob.swarm, reason))
    blob.elected = False
