"""Rules for going on without a supernode: ask the holders we know what they have, and swap with them.

A piece whose hash no supernode signed, because a peer got it from the origin since, is taken too: this node's own
digest check tells. After one that failed only signed ones are (State.takeable). Asking upstream is
origin.plan_upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.blob import StoreState
from peer.downloader.contract import AskHoldings, HoldingsKnown
from peer.downloader.leases import start_standalone

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.state import State
    from proto.wire.messages import Holders


def holders_named(state: State, event: Holders) -> Blob | None:
    """The supernode names whom to ask if it is lost."""
    blob = state.swarms.get(event.swarm)
    if blob is not None:
        for node in event.nodes:
            holder = state.nodes.get(node)
            if holder is not None and not state.is_banned(holder.peer):
                blob.holders.learn(holder)
    return blob


def plan_swaps(state: State, blob: Blob) -> None:
    """Questions that are due, then transfers, within the limits."""
    if state.connected or not state.sharing or not blob.ticketed or blob.store is not StoreState.OPEN or blob.all_held:
        return
    for entry in blob.holders.due(state.now):
        if len(state.queries) >= state.limits.queries_max:
            break
        entry.query = state.new_id()
        entry.ask_at = state.now + state.limits.refresh_s
        state.queries[entry.query] = (blob.digest, entry.holder.peer)
        # Nobody signs any more: what a holder has of hashes it says once, and each piece brings its own along.
        hashes = blob.hashed != blob.full and (entry.held is None or blob.digest in state.proven_only)
        state.emit(AskHoldings(entry.query, blob.digest, entry.holder, hashes))
    _start_transfers(state, blob)


def _start_transfers(state: State, blob: Blob) -> None:
    assert blob.layout is not None
    room = state.limits.standalone_fetches_max - sum(len(other.fetches) for other in state.busy)
    while room > 0:
        missing = _in_turn(state, blob) & state.takeable(blob) & blob.missing & ~blob.leased
        chosen = blob.holders.choose(missing, blob.first_read, state.now, state.limits, state.rng) if missing else None
        if chosen is None:
            return
        piece, entry = chosen
        slowest_s = blob.layout.length(piece) / state.limits.standalone_rate_min_bytes_s
        start_standalone(state, blob, piece, entry.holder, max(state.limits.standalone_deadline_s, slowest_s))
        room -= 1


def _in_turn(state: State, blob: Blob) -> int:
    """What this node's turn has come for. It waits for those before it while they get on, and ever less for others."""
    assert blob.layout is not None
    idle_s = 0.0 if blob.fetches else max(0.0, state.now - blob.progress_at)
    doublings = min(int(idle_s / state.limits.refresh_s), state.limits.turn_doublings_max)
    return blob.holders.in_turn(state.name, blob.layout.count, doublings)


def holdings_known(state: State, event: HoldingsKnown) -> Blob | None:
    """A holder answered, or could not be asked."""
    digest, peer = state.queries.pop(event.query, (None, None))
    blob = state.blobs.get(digest) if digest is not None else None
    entry = blob.holders.known.get(peer) if blob is not None and peer is not None else None
    if blob is None or entry is None or peer is None:
        return blob
    entry.query = 0
    if event.held is None:
        entry.unanswered = 0 if event.busy else entry.unanswered + 1
        blob.holders.failed(peer, state.now, state.limits, busy=event.busy)
    else:
        entry.held = event.held & blob.full
        entry.failures = entry.unanswered = 0
        state.note_found(blob)
    return blob
