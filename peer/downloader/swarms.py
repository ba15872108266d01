"""Rules for blobs as a whole: swarms opened and voided, the store's answers, this node's own digest check.

A blob is complete only after its digest passed here. What did not match is dropped, down to the last hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader import private
from peer.downloader.admission import answer_admitted, refuse_unanswered, set_layout, tell_wanted, wants_whole
from peer.downloader.blob import StoreState
from peer.downloader.contract import CheckDigest, VoidInStore
from peer.downloader.leases import completed, decline_early, give_up, start_early, stop_all, store_trouble
from peer.downloader.readers import serve
from proto.pieces import indices
from proto.wire.messages import BlobChecked, Stored, Withdraw

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.contract import (
        BlobEvicted,
        BlobFound,
        DigestChecked,
        HashesConflict,
        HashesLearned,
        PiecesRotten,
        StoreOpened,
        StoreRefused,
    )
    from peer.downloader.state import State
    from proto.wire.messages import SwarmOpened, Voided


def found(state: State, event: BlobFound) -> Blob | None:
    """A blob that was in the store when the node started: held, wanted by nobody yet."""
    blob = state.blob(event.digest)
    if not set_layout(state, blob, event.size_bytes, event.piece_size_bytes):
        return blob
    blob.held, blob.complete = event.held, event.complete
    blob.sources = list(event.sources)
    blob.private_at = dict.fromkeys(event.private_at)
    blob.alone = blob.private
    if blob.private and not blob.complete:
        # Which of them nobody vouched for is not known any more.
        state.withhold(blob, blob.held)
    # Of a complete one: where it was public first.
    came_from = event.sources[-1:] if event.complete else event.sources
    blob.upstreams = {source.upstream: None for source in came_from}
    state.note(blob, "found in the store")
    return blob


def opened(state: State, event: SwarmOpened) -> Blob | None:
    """The supernode's yes to the oldest open Announce of this blob, or a renewed ticket."""
    blob = state.named(event.digest)
    if blob is None:
        state.send(Withdraw(event.digest))
        return None
    asked = blob.answered()
    if asked is not None and private.is_foreign(blob, asked.source):
        private.refuse_foreign(state, blob, asked.source)
        state.send(Withdraw(event.digest))
        return blob
    known = set_layout(state, blob, event.size_bytes, event.piece_size_bytes)
    if not known and not _cut_anew(state, blob, event):
        _other_cut(state, blob)
        return blob
    if blob.swarm and blob.swarm != event.swarm:
        state.swarms.pop(blob.swarm, None)
    anew, blob.swarm, blob.ticketed = event.swarm != blob.swarm, event.swarm, bool(event.ticket)
    blob.shared_whole = event.whole
    state.swarms[event.swarm] = blob
    blob.progress_at = state.now
    state.note(blob, f"swarm {event.swarm} opened")
    for piece in indices(blob.held & ~blob.announced_held):
        # They came while the answer was on its way.
        state.send(Stored(0, blob.swarm, piece, 0))
    blob.announced_held = blob.held
    if asked is not None and event.private:
        for source in event.public_at:
            # Its bytes are no secret: they came from there.
            state.mark_public(blob, source, asked.at - max(0.0, event.age_s))
            blob.upstreams.setdefault(source.upstream)
        private.shared(state, blob, asked.source, asked.allowed, public=bool(event.public_at))
    elif asked is not None and asked.asks:
        # The word is at most so old: its age, and the time that the question and the answer took together.
        serve(state, blob, asked.source, asked.at - max(0.0, event.age_s), anew=anew)
    if blob.wanted and not blob.complete:
        state.open_store(blob)
    tell_wanted(state, blob)
    state.tell_reader_moved(blob)
    return blob


def _cut_anew(state: State, blob: Blob, event: SwarmOpened) -> bool:
    """Of a blob that was dropped, of which nothing is here, the cut is the new swarm's. False if something is."""
    answered = any(reader.answered for reader in blob.readers.values())
    if blob.complete or blob.held or blob.fetches or blob.upstream or blob.check or answered:
        return False
    before, known = blob.layout, blob.hashed
    blob.cut(None)
    blob.hashed = 0
    if not set_layout(state, blob, event.size_bytes, event.piece_size_bytes):
        blob.cut(before)
        blob.hashed = known
        return False
    blob.void_once_open = blob.store is StoreState.OPENING
    state.close_store(blob)
    return True


def _other_cut(state: State, blob: Blob) -> None:
    """The swarm's cut is not ours: a complete blob then serves our own clients alone, an unfinished one is dropped."""
    state.note(blob, "the swarm is cut in other pieces")
    if blob.complete:
        return
    give_up(state, blob, "limit", "the blob is cut otherwise now")
    if blob.store is StoreState.OPEN:
        state.emit(VoidInStore(blob.digest))
        blob.check_voided = bool(blob.check)
    state.send(Withdraw(str(blob.digest)))
    blob.announced = False
    blob.held = blob.hashed = 0
    state.withhold(blob, 0)
    state.end_private(blob)
    blob.upstreams.clear()
    if blob.store is StoreState.CLOSED:
        blob.cut(None)


def hashes_learned(state: State, event: HashesLearned) -> Blob | None:
    """More pieces may be fetched from peers."""
    blob = state.blobs.get(event.digest)
    if blob is not None:
        blob.hashed |= event.pieces & blob.full
        state.withhold(blob, blob.withheld & ~blob.hashed)
    return blob


def hashes_conflict(state: State, event: HashesConflict) -> Blob | None:
    """What we hold cannot all be right: start afresh, by the supernode's hashes."""
    blob = state.blobs.get(event.digest)
    if blob is not None and not blob.complete:
        void(state, blob, "pieces held do not match the supernode's hashes")
    return blob


def store_opened(state: State, event: StoreOpened) -> Blob | None:
    """Pinned: begin what waited for it."""
    blob = state.blobs.get(event.digest)
    if blob is None:
        return None
    blob.store = StoreState.OPEN
    if blob.void_once_open:
        _open_anew(state, blob)
        return blob
    blob.held, blob.complete = event.held & blob.full, event.complete
    blob.hashed |= event.hashed & blob.full
    state.withhold(blob, 0 if blob.complete else blob.withheld & ~blob.hashed)
    if not blob.wanted and not blob.complete and blob.readers:
        blob.wanted = any(reader.admitted and not reader.failed for reader in blob.readers.values())
        blob.whole = wants_whole(blob)
    if blob.announced and blob.held != blob.announced_held:
        state.announce(blob, None)
    answer_admitted(state, blob)
    start_early(state, blob)
    check_if_whole(state, blob)
    return blob


def _open_anew(state: State, blob: Blob) -> None:
    """What was opened was dropped meanwhile, and may be cut otherwise by now."""
    blob.void_once_open = False
    state.emit(VoidInStore(blob.digest))
    state.close_store(blob)
    if blob.wanted and any(reader.admitted and not reader.failed for reader in blob.readers.values()):
        state.open_store(blob)


def store_refused(state: State, event: StoreRefused) -> Blob | None:
    """The store cannot take the blob at all."""
    blob = state.blobs.get(event.digest)
    if blob is None:
        return None
    blob.store = StoreState.CLOSED
    blob.void_once_open = False
    decline_early(state, blob)
    refuse_unanswered(state, blob, "store", event.message)
    blob.wanted = False
    state.note(blob, f"store refused: {event.message}")
    if blob.announced:
        state.send(Withdraw(str(blob.digest)))
        blob.announced = False
    blob.complete = False
    if not (blob.private and blob.held):
        # Private bytes may lie there yet, and be given again: until they are evicted it is known whose they are.
        blob.held = 0
        state.withhold(blob, 0)
        state.end_private(blob)
    return blob


def evicted(state: State, event: BlobEvicted) -> Blob | None:
    """Gone from the store. If it is being opened again, StoreOpened brings its state."""
    blob = state.blobs.get(event.digest)
    if blob is None or blob.store is not StoreState.CLOSED:
        return blob
    blob.held = blob.hashed = 0
    state.withhold(blob, 0)
    blob.upstreams.clear()
    blob.complete = False
    state.end_private(blob)
    state.note(blob, "evicted")
    if blob.announced and not blob.wanted:
        state.send(Withdraw(str(blob.digest)))
        blob.announced = False
    return blob


def pieces_rotten(state: State, event: PiecesRotten) -> Blob | None:
    """Pieces rotted on this node's disk: fetch them again, and them alone. All else of the blob stands."""
    blob = state.blobs.get(event.digest)
    lost = blob.held & event.pieces if blob is not None else 0
    if blob is None or not lost:
        return blob
    state.note(blob, "%d pieces rotted on the disk", None, lost.bit_count())
    blob.repair = blob.complete or blob.repair
    blob.held &= ~lost
    blob.complete = False
    blob.progress_at = state.now
    if not state.sharing:
        state.fail_readers(blob, "pieces rotted on the disk of this node, and sharing is off")
        return blob
    # While the store rests from trouble nobody checks what comes: the next client that asks has it fetched.
    # So it is with a private one: it comes by the credential of who asks.
    blob.wanted = blob.wanted or (bool(blob.sources) and not blob.private and blob.rest_until <= state.now)
    # In place of what was announced before.
    state.announce(blob, None)
    if blob.wanted:
        state.open_store(blob)
    return blob


def check_if_whole(state: State, blob: Blob) -> None:
    """All pieces are held and nobody compared the digest yet: do it now, or after the store's rest."""
    resting = blob.rest_until > state.now
    if blob.store is StoreState.OPEN and blob.all_held and not (blob.complete or blob.check or resting):
        blob.check = state.new_id()
        state.owners[blob.check] = blob
        state.note(blob, "all held: digest check")
        state.emit(CheckDigest(blob.check, blob.digest))


def digest_checked(state: State, event: DigestChecked) -> Blob | None:
    """The own check ended: complete, or all of it is wrong."""
    blob = state.owners.pop(event.check, None)
    if blob is None or blob.check != event.check:
        return blob
    blob.check = 0
    if blob.check_voided:
        blob.check_voided = False
        return blob
    if not blob.all_held:
        state.note(blob, "digest check ended with pieces missing")
    elif event.trouble:
        store_trouble(state, blob, event.trouble)
    elif event.matches:
        completed(state, blob)
    else:
        if blob.swarm:
            state.send(BlobChecked(blob.swarm, False))
        if blob.unproven:
            state.distrust(blob)
        void(state, blob, "the blob's content does not match its digest")
    return blob


def voided(state: State, event: Voided) -> Blob | None:
    """The blob did not match at the supernode. What this node checked itself stands."""
    blob = state.swarms.pop(event.swarm, None)
    if blob is None:
        return None
    blob.swarm = 0
    blob.announced = blob.announced_wanted = False
    # Another size may be right: who comes now is let in by a new word.
    for source in blob.sources:
        state.public.pop((blob.digest, source), None)
    if blob.complete:
        blob.hashed = 0
    else:
        void(state, blob, "the origin's content does not match the digest")
    return blob


def void(state: State, blob: Blob, message: str) -> None:
    """Drop everything of it; a client that asks again starts afresh."""
    state.note(blob, f"voided: {message}")
    decline_early(state, blob)
    stop_all(state, blob)
    for fetch in blob.fetches.values():
        fetch.voided = True
    if blob.upstream is not None:
        blob.upstream.voided = True
    state.fail_readers(blob, message, mismatch=True)
    refuse_unanswered(state, blob, "changed", message)
    if blob.store is StoreState.OPEN:
        state.emit(VoidInStore(blob.digest))
        blob.check_voided = bool(blob.check)
    blob.void_once_open = blob.store is StoreState.OPENING
    blob.held = blob.hashed = blob.announced_held = 0
    state.withhold(blob, 0)
    blob.upstreams.clear()
    blob.complete = blob.wanted = blob.announced_wanted = False
    state.end_private(blob)
