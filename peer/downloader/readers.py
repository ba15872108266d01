"""Rules for clients: who may read a blob, how the permission is found out, when a client is sent to its origin instead.

A client is answered only when its own source is known to be public, or to give the blob to this very client (private),
and the blob is open in the store. Of public ones the supernode's word counts, without one an anonymous HEAD of this
node's own. Nobody waits longer than limits.size_wait_s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.downloader import private
from peer.downloader.admission import admit, refuse, set_layout, tell_wanted
from peer.downloader.blob import Reader, StoreState
from peer.downloader.contract import BlobWanted, CheckPublic, PublicChecked
from proto.wire.messages import NO_READER, PROVEN, BlobRefused

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.contract import BackgroundDropped, ReaderAt, ReaderClosed
    from peer.downloader.state import State
    from proto.wire.messages import Source

# What the proxy knows of (peer.node.blobs.NotShared); another reason of the supernode's becomes the last.
_REASONS: Final = ("private", "unknown", "rate_limited", "slow", "limit", "unavailable", "foreign")
# The origin did not decide.
_OUTAGES: Final = ("rate_limited", "unavailable")


def blob_wanted(state: State, event: BlobWanted) -> Blob:
    """A client came: answer, ask whether it may, or refuse."""
    blob = state.blob(event.digest)
    deadline = state.now + state.limits.size_wait_s
    reader = Reader(event.reader, event.source, deadline, event.allowed_bytes, event.proven)
    reader.whole, reader.ranges, reader.background = event.whole, event.ranges, event.background
    blob.readers[event.reader] = reader
    state.reader_blobs[event.reader] = blob
    state.note(blob, f"wanted by reader {event.reader}")
    if not state.sharing:
        refuse(state, blob, reader, "off", "peer-to-peer is turned off on this node")
    elif blob.rest_until > state.now and not blob.complete:
        refuse(state, blob, reader, "store", "the store of this node is full or in trouble")
    elif blob.private:
        private.wanted(state, blob, reader)
    elif blob.layout is not None and _is_known_public(state, blob, event.source):
        if _bind(state, blob, event.source):
            admit(state, blob, event.source)
    elif reader.proven and blob.complete:
        _wanted_from_store(state, blob, reader)
    elif reader.allowed and not state.connected and state.is_denied(event.source):
        private.wanted(state, blob, reader)
    elif reader.allowed and not set_layout(state, blob, reader.allowed_bytes or 0, None):
        refuse(state, blob, reader, "foreign", "the origin says another size than the blob has here")
    else:
        ask(state, blob, event.source, reader.allowed)
    return blob


def _wanted_from_store(state: State, blob: Blob, reader: Reader) -> None:
    """A public blob is here, and the client's origin allows it. If that is another one than it came from, the blob must
    be public there still: no other origin's word unlocks what was made private.
    """
    if not blob.upstreams or reader.source.upstream in blob.upstreams:
        private.wanted(state, blob, reader)
        return
    came_from = [source for source in blob.sources if source.upstream in blob.upstreams]
    if any(state.is_public(blob.digest, source) for source in came_from):
        private.wanted(state, blob, reader)
    elif came_from:
        ask(state, blob, came_from[0])
    else:
        refuse(state, blob, reader, "foreign", "what is here of this blob came from where it is private now")


def _look_again(state: State, blob: Blob, source: Source, *, outage: bool = False) -> None:
    """Of this place it is known now whether it is public; clients of others may have waited for that."""
    for reader in list(blob.readers.values()):
        waits = reader.proven and blob.complete and not (reader.admitted or reader.failed or blob.private)
        if waits and reader.source.upstream != source.upstream:
            if outage:
                private.wanted(state, blob, reader)
            else:
                _wanted_from_store(state, blob, reader)


def _is_known_public(state: State, blob: Blob, source: Source) -> bool:
    """With a supernode its word is needed where the bytes of this blob may be another upstream's."""
    return state.is_public(blob.digest, source) and (not state.connected or blob.serves(source.upstream))


def ask(state: State, blob: Blob, source: Source, allowed: int = 0) -> None:
    """Find out whether the blob is public at the source, and its size; or whether it is shared among those allowed."""
    if state.connected:
        if any(other.source.upstream != source.upstream for other in blob.unanswered):
            _hurry(state, blob, source)
        if blob.asked_for(source) < allowed:
            blob.wanted = blob.wanted or not blob.complete
            state.announce(blob, source, allowed)
    elif not any(asked[:2] == (blob.digest, source) for asked in state.public_checks.values()):
        check = state.new_id()
        state.public_checks[check] = (blob.digest, source, state.now)
        state.emit(CheckPublic(check, blob.digest, source))


def _hurry(state: State, blob: Blob, source: Source) -> None:
    """The answer comes after that about another upstream, which may be slow: its trouble is not theirs."""
    for reader in blob.readers.values():
        if reader.source == source:
            reader.deadline = min(reader.deadline, state.now + state.limits.other_upstream_s)


def serve(state: State, blob: Blob, source: Source, asked_at: float, *, anew: bool = True) -> None:
    """The source, asked then or later, gives the blob to anyone: let in who named it. `anew`: see _bind()."""
    if _bind(state, blob, source, anew=anew):
        state.mark_public(blob, source, asked_at)
        admit(state, blob, source)
        _look_again(state, blob, source)


def _bind(state: State, blob: Blob, source: Source, *, anew: bool = True) -> bool:
    """What comes is for readers of this source's upstream. They are refused where another's bytes are here, unproven.

    `anew`: nothing comes any more from where it was asked for before.
    """
    if blob.serves(source.upstream):
        return True
    if blob.upstreams and _bound_elsewhere(state, blob):
        message = "what is here of the blob came from another origin, and its digest has not passed yet"
        source_refused(state, blob, source, "unavailable", message, 0.0)
        return False
    if anew:
        blob.upstreams.clear()
    blob.upstreams[source.upstream] = None
    return True


def _bound_elsewhere(state: State, blob: Blob) -> bool:
    """Whether bytes are here, or come, that no supernode vouches for."""
    if blob.held & ~blob.hashed or blob.upstream is not None:
        return True
    return not state.connected and any(reader.admitted and not reader.failed for reader in blob.readers.values())


def reader_at(state: State, event: ReaderAt) -> Blob | None:
    """A client waits for a piece."""
    blob = state.reader_blobs.get(event.reader)
    if blob is not None:
        reader = blob.readers[event.reader]
        reader.piece, reader.waits_since = event.piece, state.now
        state.tell_reader_moved(blob)
    return blob


def reader_closed(state: State, event: ReaderClosed) -> Blob | None:
    """A client left. Its download goes on, unless it never began."""
    blob = state.reader_blobs.pop(event.reader, None)
    if blob is None:
        return None
    del blob.readers[event.reader]
    if not blob.readers and blob.store is StoreState.CLOSED and not blob.unanswered and not blob.swarm:
        blob.wanted = False
    state.tell_reader_moved(blob)
    return blob


def background_dropped(state: State, event: BackgroundDropped) -> Blob | None:
    """Nobody waits for it but a client that came."""
    blob = state.blobs.get(event.digest)
    if blob is not None and blob.background_alone:
        blob.preheated = False
        if not blob.readers and not blob.complete:
            state.note(blob, "not to be here any more")
            blob.wanted = False
    return blob


def public_checked(state: State, event: PublicChecked) -> Blob | None:
    """This node's own HEAD ended."""
    digest, source, asked_at = state.public_checks.pop(event.check, (None, None, 0.0))
    blob = state.blobs.get(digest) if digest is not None else None
    if blob is None or source is None:
        return blob
    reason = event.reason
    if private.is_foreign(blob, source):
        private.refuse_foreign(state, blob, source)
        return blob
    if reason in _OUTAGES and blob.layout is not None and state.is_public(blob.digest, source, outage=True):
        admit(state, blob, source)
        return blob
    if not reason and not set_layout(state, blob, event.size_bytes, None):
        reason = "limit"
    if not reason and blob.complete and blob.upstreams and source.upstream not in blob.upstreams:
        # As if it allowed each of its clients: the blob came from another.
        for reader in list(blob.readers.values()):
            if reader.source == source and not (reader.answered or reader.failed):
                reader.allowed_bytes, reader.proven = event.size_bytes, True
                _wanted_from_store(state, blob, reader)
    elif not reason:
        serve(state, blob, source, asked_at)
    elif not (state.connected and blob.asked_for(source) >= 0):
        message = event.message or "the blob's size is not one we serve"
        source_refused(state, blob, source, reason, message, event.retry_after_s)
    return blob


def source_refused(
    state: State, blob: Blob, source: Source, reason: str, message: str, retry_after_s: float, allowed: int = PROVEN
) -> None:
    """Not public there: its clients go to their origin, and the download ends unless others want it.

    Those that the origin allows to read it have it by their own credentials, once the supernode was told so (`allowed`:
    what it was told) and does not share it.
    """
    if reason in ("private", "unknown"):
        state.public.pop((blob.digest, source), None)
        if source in blob.sources:
            blob.sources.remove(source)
    if reason == "private":
        state.deny(source)
    for reader in list(blob.readers.values()):
        if reader.source != source or reader.answered or reader.failed:
            continue
        if not reader.allowed or reason in ("slow", "unproven", "foreign"):
            known = "private" if reason == "unproven" else reason if reason in _REASONS else "unavailable"
            refuse(state, blob, reader, known, message, retry_after_s)
        elif state.connected and reader.allowed > allowed:
            ask(state, blob, source, reader.allowed)
        else:
            private.wanted(state, blob, reader)
    _look_again(state, blob, source, outage=reason not in ("private", "unknown"))
    if not blob.complete and not blob.swarm and not any(r.admitted and not r.failed for r in blob.readers.values()):
        blob.wanted = False


def blob_refused(state: State, event: BlobRefused) -> Blob | None:
    """The supernode's no to the oldest open Announce of this blob."""
    blob = state.named(event.digest)
    if blob is None:
        return None
    asked = blob.answered()
    state.note(blob, f"refused by the supernode: {event.reason}")
    if asked is not None:
        reason, message, retry_after_s = event.reason, event.message, event.retry_after_s
        source_refused(state, blob, asked.source, reason, message, retry_after_s, asked.allowed)
    if not blob.swarm and not blob.complete and not blob.unanswered and not blob.fetched_here:
        if not blob.private:
            state.fail_readers(blob, f"the supernode does not share this blob: {event.reason}")
        blob.wanted = any(not r.failed for r in blob.readers.values())
    tell_wanted(state, blob)
    return blob


def overdue(state: State, blob: Blob) -> None:
    """Clients that waited too long for an answer, or for the next piece, continue from their origin."""
    for reader in blob.readers.values():
        if not reader.answered and not reader.failed and reader.deadline <= state.now:
            refuse(state, blob, reader, "link", "no word of this blob's size in time")
    for reader in blob.readers.values():
        if withheld_until(state, blob, reader) <= state.now:
            state.fail_reader(blob, reader, "nobody vouched for what came, for too long")
    if stalled_at(state, blob) <= state.now:
        _stalled(state, blob)
    if unwanted_at(state, blob) <= state.now:
        state.note(blob, "given up: no client waits, and nothing came")
        state.stop_upstream(blob)
        blob.wanted = False


def _stalled(state: State, blob: Blob) -> None:
    waits = blob.fetches or blob.upstream or blob.check
    if state.connected and not blob.starved and not waits:
        state.note(blob, f"nothing came for {state.now - blob.progress_at:.0f} s: the owners ask the origin")
        blob.starved, blob.found_at, blob.origin_state = True, state.now, ""
    else:
        state.fail_readers(blob, f"nothing came for {state.now - blob.progress_at:.0f} s")


def withheld_until(state: State, blob: Blob, reader: Reader) -> float:
    """When a client goes to its origin that is given nothing, though the piece that it waits for came, or comes."""
    waits = reader.answered and not reader.failed and reader.piece != NO_READER and not blob.complete
    return reader.waits_since + state.limits.withheld_s if waits and blob.withheld >> reader.piece & 1 else float("inf")


def stalled_at(state: State, blob: Blob) -> float:
    """When something is done for a blob that nothing happens for: its owners ask the origin, then readers go there.

    What is under way (a transfer, this node's own fetch, a digest check) puts that off, not longer than clients wait.
    """
    if blob.complete or blob.first_read == NO_READER:
        return float("inf")
    shared = blob.starved or (not state.connected and bool(blob.holders.known))
    starved_s = state.limits.starved_s if shared else 0.0
    if blob.fetches or blob.upstream or blob.check:
        return blob.progress_at + state.limits.patience_s + state.limits.stall_s + starved_s
    # Others of the swarm have their turn, or other blobs have this node's link.
    busy_at = max(blob.moved_at, state.piece_at)
    start = max(blob.progress_at, min(busy_at, blob.progress_at + state.limits.patience_s))
    if not state.connected and state.ever_connected:
        start = max(start, state.upstream_from)
    return start + state.limits.stall_s + starved_s


def unwanted_at(state: State, blob: Blob) -> float:
    """When a blob that no client waits for any more is given up, since nothing of it comes either."""
    if not blob.wanted or blob.complete or blob.readers or blob.fetches or blob.check:
        return float("inf")
    held_back = state.connected and blob.background_alone
    return blob.progress_at + (state.limits.preheat_s if held_back else state.limits.stall_s)


def due_at(state: State, blob: Blob) -> float:
    """When overdue() has something to do for this blob, if nothing happens before."""
    due = min(stalled_at(state, blob), unwanted_at(state, blob))
    for reader in blob.readers.values():
        if not reader.answered and not reader.failed and reader.deadline < due:
            due = reader.deadline
        if blob.withheld:
            due = min(due, withheld_until(state, blob, reader))
    return due
