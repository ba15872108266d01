"""What must hold of a Downloader after every event; property-based tests and the simulator call check().

It reads the state and raises AssertionError with the rule that is broken. It changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.blob import PieceState, StoreState

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.machine import Downloader
    from peer.downloader.state import State


def check(machine: Downloader) -> None:
    """Raise AssertionError naming the broken rule."""
    state = machine.state
    assert not state.out, "every command is handed out"
    for digest, blob in state.blobs.items():
        assert blob.digest == digest
        _check_pieces(state, blob)
        _check_transfers(state, blob)
        _check_readers(state, blob)
        _check_session(state, blob)
    _check_tables(state)


def _check_pieces(state: State, blob: Blob) -> None:
    assert blob.full == (blob.layout.full_mask if blob.layout is not None else 0), "the mask is the cut's"
    assert blob.held & ~blob.full == 0, "held pieces exist"
    assert blob.hashed & ~blob.full == 0, "hashed pieces exist"
    assert blob.withheld & ~blob.full == 0, "withheld pieces exist"
    assert not (blob.withheld and blob.complete), "of a complete blob nothing is withheld"
    assert not blob.complete or blob.all_held, "complete means every piece"
    assert not (blob.held & blob.leased), "a piece is in one state"
    if blob.layout is not None and blob.layout.count <= 64:
        states = [blob.piece_state(piece) for piece in range(blob.layout.count)]
        assert states.count(PieceState.HELD) == blob.held.bit_count()
    if blob.all_held and blob.store is StoreState.OPEN:
        rests = blob.rest_until > 0.0 and not blob.wanted
        assert blob.complete or blob.check or rests, "a whole blob is being checked, or rests after trouble"
    assert (blob in state.busy) == (blob.wanted and not blob.complete), "busy is what is wanted"


def _check_transfers(state: State, blob: Blob) -> None:
    under_way = bool(blob.fetches or blob.upstream or blob.check)
    assert not under_way or blob.store is StoreState.OPEN, "bytes go to an open blob alone"
    for fetch in blob.fetches.values():
        assert state.owners.get(fetch.fetch) is blob, "a transfer has one owner"
        assert blob.full >> fetch.piece & 1, "a transfer's piece exists"
        assert not blob.held >> fetch.piece & 1 or fetch.cancelled, "what is held is not fetched"
        vouched = fetch.voided or not fetch.claimed or blob.hashed >> fetch.piece & 1
        assert vouched or blob.withheld >> fetch.piece & 1, "what nobody vouches for is withheld before it is held"
        if fetch.lease:
            assert state.leases.get(fetch.lease) == fetch.fetch, "a lease has one transfer"
    unleased = [fetch for fetch in blob.fetches.values() if fetch.standalone]
    assert len(unleased) <= state.limits.standalone_fetches_max, "transfers without a lease are bounded"
    for known in blob.holders.known.values():
        mine = [fetch for fetch in unleased if fetch.holder is not None and fetch.holder.peer == known.holder.peer]
        assert known.transfers <= len(mine), "a holder's transfers are counted"
        assert known.transfers <= state.limits.standalone_fetches_per_holder


def _check_readers(state: State, blob: Blob) -> None:
    for reader in blob.readers.values():
        assert state.reader_blobs.get(reader.reader) is blob, "a reader has one blob"
        assert not reader.answered or reader.admitted, "who reads, may"
        if reader.answered:
            assert blob.store is StoreState.OPEN, "who reads, reads from an open blob"
        if not (reader.answered or reader.failed):
            assert reader.deadline > state.now, "nobody waits too long for an answer"


def _check_session(state: State, blob: Blob) -> None:
    if state.connected:
        told = not (blob.announced_wanted and blob.announced_background) or bool(blob.unanswered)
        # Nothing is announced without a source: the supernode would refuse it.
        told = told or (blob.place is None and not blob.private)
        assert told or not blob.pulled, "that a client waits is told to the supernode"
        return
    assert not blob.swarm, "numbers end with their session"
    assert not blob.unanswered, "questions end with their session"
    assert not blob.early, "grants end with their session"
    assert not any(fetch.lease for fetch in blob.fetches.values()), "leases end with their session"


def _check_tables(state: State) -> None:
    limits = state.limits
    assert len(state.queries) <= limits.queries_max, "questions are bounded"
    assert len(state.public) <= limits.public_max, "what is known public is bounded"
    assert sum(len(blob.fetches) for blob in state.blobs.values()) <= limits.fetches_max + limits.standalone_fetches_max
    for owned, owner in state.owners.items():
        assert state.blobs.get(owner.digest) is owner, "what is under way belongs to a blob"
        assert owned in _under_way(owner), "nothing is under way that no blob knows"
    for swarm, named in state.swarms.items():
        assert state.blobs.get(named.digest) is named, "a swarm's blob is known"
        assert named.swarm == swarm, "a swarm number names its blob"
    for reader, read in state.reader_blobs.items():
        assert state.blobs.get(read.digest) is read, "a reader's blob is known"
        assert reader in read.readers, "a blob knows its readers"
    for blob in state.busy:
        assert state.blobs.get(blob.digest) is blob, "what is busy is known"


def _under_way(blob: Blob) -> list[int]:
    upstream = [blob.upstream.fetch] if blob.upstream is not None else []
    return [*blob.fetches, *upstream, blob.check]
