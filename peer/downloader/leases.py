"""Rules for transfers between peers: leases granted, cancelled and ended, duplicates, and the store's own trouble.

A lease ends in exactly one of Stored, Failed or the supernode's Cancel. A success that comes after that still counts
as held and is reported without a lease. Of two transfers of one piece the first verified one wins, the other is
cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.admission import refuse_unanswered
from peer.downloader.blob import Fetch, StoreState
from peer.downloader.contract import (
    BlobComplete,
    CancelFetch,
    FetchEnded,
    PayloadCame,
    PieceArrived,
    PieceHeld,
    StartFetch,
    StoreContent,
    TransportFailed,
)
from proto.wire.messages import BlobChecked, Failed, FetchReason, Grant, InlineBlob, Stored

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.contract import Holder
    from peer.downloader.state import State
    from proto.wire.messages import Cancel


def granted(state: State, grant: Grant | InlineBlob) -> Blob | None:
    """Begin the transfer, keep it until the store is open, or say why not."""
    blob = state.swarms.get(grant.swarm)
    if blob is None or blob.layout is None or not state.sharing:
        state.send(Failed(grant.lease, FetchReason.PROTOCOL))
        return blob
    if blob.store is not StoreState.OPEN:
        if blob.store is StoreState.CLOSED and (blob.complete or not blob.wanted):
            _decline(state, blob, grant)
        elif len(blob.early) < state.limits.fetches_max:
            blob.early.append(grant)
        else:
            state.send(Failed(grant.lease, FetchReason.BUSY))
        return blob
    _begin(state, blob, grant)
    return blob


def _decline(state: State, blob: Blob, grant: Grant | InlineBlob) -> None:
    """Nobody here wants this blob (any more)."""
    piece = grant.piece if isinstance(grant, Grant) else 0
    if blob.held >> piece & 1:
        state.send(Stored(grant.lease, grant.swarm, piece, 0))
    else:
        state.send(Failed(grant.lease, FetchReason.CANCELLED))


def start_early(state: State, blob: Blob) -> None:
    """The store is open: begin what was granted meanwhile."""
    early, blob.early = blob.early, []
    for grant in early:
        _begin(state, blob, grant)


def _begin(state: State, blob: Blob, grant: Grant | InlineBlob) -> None:
    piece = grant.piece if isinstance(grant, Grant) else 0
    if piece < 0 or not blob.full >> piece or grant.lease in state.leases:
        state.send(Failed(grant.lease, FetchReason.PROTOCOL))
        return
    if blob.held >> piece & 1:
        state.send(Stored(grant.lease, grant.swarm, piece, 0))
        return
    if len(state.owners) >= state.limits.fetches_max:
        state.send(Failed(grant.lease, FetchReason.BUSY))
        return
    if isinstance(grant, InlineBlob):
        fetch = _new_fetch(state, blob, Fetch(state.new_id(), piece, grant.lease, None))
        state.emit(StoreContent(fetch.fetch, blob.digest, grant.content))
        return
    holder = state.nodes.get(grant.node)
    if holder is None:
        state.note(blob, f"lease {grant.lease} names an unknown node", piece)
        state.send(Failed(grant.lease, FetchReason.PROTOCOL))
        return
    claim = b"" if blob.hashed >> piece & 1 else grant.claim
    if claim and blob.digest in state.proven_only:
        state.send(Failed(grant.lease, FetchReason.UNHASHED))
        return
    blob.holders.learn(holder)
    fetch = _new_fetch(state, blob, Fetch(state.new_id(), piece, grant.lease, holder, claimed=bool(claim)))
    if claim:
        blob.unproven = True
        state.withhold(blob, blob.withheld | 1 << piece)
    state.note(blob, "lease %d: fetch %d from node %d", piece, grant.lease, fetch.fetch, grant.node)
    # Of a lease that is over nothing is known any more: there is nothing to wait for.
    behind = state.leases.get(grant.behind, 0)
    deadline_s = grant.expires_ms / 1000
    state.emit(StartFetch(fetch.fetch, blob.digest, piece, holder, deadline_s, grant.ahead, behind, claim=claim))


def start_standalone(state: State, blob: Blob, piece: int, holder: Holder, deadline_s: float) -> None:
    """A transfer that no lease stands behind."""
    fetch = _new_fetch(state, blob, Fetch(state.new_id(), piece, 0, holder, standalone=True))
    blob.holders.known[holder.peer].transfers += 1
    state.note(blob, f"fetch {fetch.fetch} without a lease", piece)
    unproven = not blob.hashed >> piece & 1
    blob.unproven |= unproven
    state.emit(StartFetch(fetch.fetch, blob.digest, piece, holder, deadline_s, unproven=unproven))


def _new_fetch(state: State, blob: Blob, fetch: Fetch) -> Fetch:
    blob.fetches[fetch.fetch] = fetch
    state.owners[fetch.fetch] = blob
    if fetch.lease:
        state.leases[fetch.lease] = fetch.fetch
    return fetch


def cancelled(state: State, event: Cancel) -> Blob | None:
    """The supernode takes a lease back; the transfer is stopped, its lease forgotten."""
    fetch_id = state.leases.pop(event.lease, None)
    if fetch_id is None:
        for blob in state.blobs.values():
            if blob.early:
                blob.early = [grant for grant in blob.early if grant.lease != event.lease]
        return None
    blob = state.owners[fetch_id]
    fetch = blob.fetches[fetch_id]
    fetch.lease = 0
    stop(state, blob, fetch)
    # Its outcome is still to come: until then nothing is to be planned anew.
    return None


def stop(state: State, blob: Blob, fetch: Fetch) -> None:
    """Cancel a transfer; its outcome still comes."""
    if not fetch.cancelled:
        fetch.cancelled = True
        state.note(blob, f"fetch {fetch.fetch} cancelled", fetch.piece)
        if fetch.holder is not None:
            state.emit(CancelFetch(fetch.fetch))


def stop_all(state: State, blob: Blob) -> None:
    """Cancel everything of a blob that moves bytes."""
    for fetch in blob.fetches.values():
        stop(state, blob, fetch)
    state.stop_upstream(blob)


def fetch_ended(state: State, event: FetchEnded) -> Blob | None:
    """The one outcome of a transfer."""
    blob = state.owners.pop(event.fetch, None)
    fetch = blob.fetches.pop(event.fetch, None) if blob is not None else None
    if blob is None or fetch is None:
        return None
    lease = fetch.lease
    state.leases.pop(lease, None)
    known = blob.holders.known.get(fetch.holder.peer) if fetch.holder is not None else None
    if known is not None and fetch.standalone:
        known.transfers -= 1
    if not fetch.voided:
        blob.hashed |= event.learned & blob.full
    if fetch.voided:
        if lease:
            state.send(Failed(lease, FetchReason.CANCELLED))
    elif not event.reason:
        piece_held(state, blob, fetch.piece, lease, event)
        blob.starved = False
        if fetch.holder is None:
            # The supernode sent it and knows its hash: no need to announce it.
            blob.hashed |= 1 << fetch.piece
        if known is not None:
            known.failures = 0
    else:
        _fetch_failed(state, blob, fetch, event)
        _end_withholding(state, blob, fetch)
    return blob


def _end_withholding(state: State, blob: Blob, fetch: Fetch) -> None:
    """It brought nothing: the piece may come otherwise."""
    bit = 1 << fetch.piece
    others = any(other.piece == fetch.piece and other.claimed for other in blob.fetches.values())
    if fetch.claimed and not (blob.held & bit or others):
        state.withhold(blob, blob.withheld & ~bit)


def _fetch_failed(state: State, blob: Blob, fetch: Fetch, event: FetchEnded) -> None:
    state.note(blob, f"fetch {fetch.fetch} failed: {event.reason}", fetch.piece)
    lease = fetch.lease
    if lease:
        state.send(Failed(lease, event.reason))
    if event.reason == FetchReason.LOCAL:
        store_trouble(state, blob, event.message or "the store could not take a piece")
    elif event.reason not in (FetchReason.CANCELLED, FetchReason.UNHASHED):
        _holder_bad(state, blob, fetch, event.reason)


def piece_arrived(state: State, event: PieceArrived) -> Blob | None:
    """A piece came without a lease and without our asking."""
    blob = state.blobs.get(event.digest)
    if blob is not None and blob.store is StoreState.OPEN and blob.full >> event.piece & 1:
        piece_held(state, blob, event.piece)
    return blob


def payload_came(state: State, event: PayloadCame) -> Blob | None:
    """Part of a piece came without a lease: on a slow link a whole one takes longer than readers wait for nothing."""
    blob = state.blobs.get(event.digest)
    if blob is not None and blob.store is StoreState.OPEN:
        blob.progress_at = state.now
    return blob


def transport_failed(state: State, event: TransportFailed) -> Blob | None:
    """Nothing more comes that way."""
    blob = state.blobs.get(event.digest)
    if blob is not None and not blob.complete:
        store_trouble(state, blob, event.message)
    return blob


def piece_held(
    state: State, blob: Blob, piece: int, lease: int = 0, ended: FetchEnded | None = None, claim: bytes = b""
) -> None:
    """A piece passed its hash: report it, let readers on, stop what else brings it. `claim`: see Stored."""
    new = not blob.held >> piece & 1
    blob.held |= 1 << piece
    blob.progress_at = state.piece_at = state.now
    if blob.swarm and (new or lease):
        durations = _durations(ended) if ended is not None else (0, 0, 0, 0)
        state.send(Stored(lease, blob.swarm, piece, *durations, claim))
        blob.announced_held |= 1 << piece
    if not new:
        return
    state.note(blob, "held", piece)
    if not state.connected:
        state.note_found(blob)
    state.emit(PieceHeld(blob.digest, piece))
    for other in blob.fetches.values():
        if other.piece == piece:
            stop(state, blob, other)
    state.tell_reader_moved(blob)


def _durations(ended: FetchEnded) -> tuple[int, int, int, int]:
    """As Stored tells them."""
    elapsed_ms, beyond_us = divmod(_microseconds(ended.elapsed_s), 1000)
    return elapsed_ms, beyond_us, _microseconds(ended.waited_s), _microseconds(ended.answered_s)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def completed(state: State, blob: Blob) -> None:
    """The digest has passed here, and the store keeps the blob."""
    blob.complete, blob.repair = True, False
    state.withhold(blob, 0)
    stop_all(state, blob)
    state.note(blob, "complete")
    state.emit(BlobComplete(blob.digest))
    if blob.swarm:
        state.send(BlobChecked(blob.swarm, True))


def _holder_bad(state: State, blob: Blob, fetch: Fetch, reason: str) -> None:
    """What a failure means for the holder, for the time when there is no supernode."""
    if fetch.holder is None:
        return
    peer = fetch.holder.peer
    if reason == FetchReason.CORRUPT:
        state.ban(peer)
        for other in state.blobs.values():
            other.holders.known.pop(peer, None)
    else:
        entry = blob.holders.known.get(peer)
        if entry is not None and reason == FetchReason.NOT_HELD and entry.held is not None:
            entry.held &= ~(1 << fetch.piece)
        if reason != FetchReason.BUSY or fetch.standalone:
            blob.holders.failed(peer, state.now, state.limits, busy=reason == FetchReason.BUSY)


def store_trouble(state: State, blob: Blob, message: str) -> None:
    """No room, or the disk fails: this blob rests for a while, and its clients continue from upstream."""
    state.note(blob, f"store trouble: {message}")
    blob.rest_until = state.now + state.limits.store_rest_s
    give_up(state, blob, "store", message)


def give_up(state: State, blob: Blob, reason: str, message: str) -> None:
    """Stop wanting a blob: its transfers end, its clients go elsewhere."""
    decline_early(state, blob)
    stop_all(state, blob)
    refuse_unanswered(state, blob, reason, message)
    state.fail_readers(blob, message)
    blob.wanted = blob.repair = False


def decline_early(state: State, blob: Blob) -> None:
    """What was granted before the store was open will not be begun."""
    early, blob.early = blob.early, []
    for grant in early:
        state.send(Failed(grant.lease, FetchReason.LOCAL))
