"""The downloader: what this node fetches, from whom and when, as a pure state machine (proto.machine).

Transitions of a piece on this node:

    MISSING --Grant / own plan (StartFetch, StoreInline, FetchUpstream)--> LEASED
    LEASED  --FetchEnded("") / UpstreamPiece--> HELD         the hash passed; late successes count
    LEASED  --FetchEnded(reason) / UpstreamEnded, no other transfer--> MISSING
    HELD    --Voided, own digest mismatch, BlobEvicted--> MISSING

Each event goes to one rule (readers, leases, swarms, origin, alone); then the blobs it touched are planned and settled.
It knows no clock, no sockets and no global randomness, and raises nothing for what comes from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader import alone, leases, origin, readers, swarms
from peer.downloader.blob import StoreState
from peer.downloader.contract import (
    BlobEvicted,
    BlobFound,
    BlobWanted,
    Command,
    DigestChecked,
    Event,
    FetchEnded,
    HashesConflict,
    HashesLearned,
    Holder,
    HoldingsKnown,
    InlineGranted,
    LinkLost,
    LinkOpened,
    PublicChecked,
    ReaderAt,
    ReaderClosed,
    Received,
    SharingSwitched,
    StoreOpened,
    StoreRefused,
    UpstreamEnded,
    UpstreamPiece,
    Wakeup,
)
from peer.downloader.limits import Limits
from peer.downloader.state import State
from proto.errors import DigestInvalid
from proto.ids import Digest, peer_id_from_bytes
from proto.messages import (
    BlobRefused,
    Cancel,
    Grant,
    Holders,
    Message,
    NodeKnown,
    OriginStatus,
    Source,
    SwarmOpened,
    Voided,
)

if TYPE_CHECKING:
    from random import Random

    from peer.downloader.blob import Blob


class Downloader:
    """One a node. `rng` is its own; the same events and seed give the same commands."""

    def __init__(self, rng: Random, limits: Limits | None = None) -> None:
        self.state = State(rng, limits or Limits())

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; the commands are to be carried out in order."""
        state = self.state
        state.now = max(state.now, now)
        blob = self._apply(event)
        if blob is not None:
            self._follow_up(blob)
        elif isinstance(event, Wakeup | LinkLost | LinkOpened | SharingSwitched):
            for each in list(state.blobs.values()):
                self._follow_up(each)
        if state.busy and isinstance(event, FetchEnded | HoldingsKnown | Cancel):
            # A transfer or question that ended leaves room for another blob's.
            for each in alone.busy_blobs(state):
                alone.plan_swaps(state, each)
        commands, state.out = state.out, []
        return commands

    def next_wakeup(self) -> float | None:
        """The first time at which a rule about time can have something to do."""
        state = self.state
        times: list[float] = []
        # Asked once a turn of the loop: a store full of blobs that rest must cost nothing here.
        for digest in state.busy | dict.fromkeys(state.reader_blobs.values()):
            blob = state.blobs[digest]
            times += [r.deadline for r in blob.readers.values() if not r.answered and not r.failed]
            times.append(readers.stalled_at(state, blob))
            if not state.linked and blob.digest in state.busy and blob.store is StoreState.OPEN:
                times += self._alone_times(blob)
        soonest = min(times, default=float("inf"))
        return soonest if soonest < float("inf") else None

    def _alone_times(self, blob: Blob) -> list[float]:
        state = self.state
        times = [state.upstream_from] if blob.being_read and state.upstream_from > state.now else []
        if blob.ticketed:
            question, rest = blob.holders.next_time(), blob.holders.next_rest_end(state.now)
            if question is not None and len(state.queries) < state.limits.queries_max:
                times.append(question)
            times += [rest] if rest is not None else []
            if blob.being_read and state.now < state.upstream_from + state.limits.refresh_s:
                times.append(state.upstream_from + state.limits.refresh_s)
        return times

    def story(self, digest: Digest, piece: int | None = None) -> list[str]:
        """Why a blob, or one piece of it, stands as it does: lines of `time text`, oldest first."""
        return self.state.story(digest, piece)

    def known_size(self, digest: Digest, source: Source, now: float) -> int | None:
        """The size in bytes where the blob is known to be public at that source and its size is known."""
        blob = self.state.blobs.get(digest)
        if blob is None or blob.layout is None or not self.state.sharing:
            return None
        return blob.layout.size_bytes if self.state.public.get((digest, source), -1.0) >= now else None

    # --- one event ----------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> Blob | None:
        """Carry the event to its rule; the blob it concerned, if it was one."""
        state = self.state
        match event:
            case Received(message):
                return self._received(message)
            case FetchEnded():
                return leases.fetch_ended(state, event)
            case UpstreamPiece():
                return origin.upstream_piece(state, event)
            case UpstreamEnded():
                return origin.upstream_ended(state, event)
            case ReaderAt():
                readers.reader_at(state, event)
                return self._of_reader(event.reader)
            case BlobWanted():
                readers.blob_wanted(state, event)
                return state.blobs.get(event.digest)
            case ReaderClosed():
                blob = self._of_reader(event.reader)
                readers.reader_closed(state, event)
                return blob
            case _:
                return self._apply_rare(event)

    def _apply_rare(self, event: Event) -> Blob | None:
        state = self.state
        match event:
            case StoreOpened():
                return swarms.store_opened(state, event)
            case StoreRefused():
                return swarms.store_refused(state, event)
            case BlobFound():
                return swarms.found(state, event)
            case BlobEvicted():
                return swarms.evicted(state, event)
            case DigestChecked():
                return swarms.digest_checked(state, event)
            case HoldingsKnown():
                return alone.holdings_known(state, event)
            case PublicChecked():
                digest = state.public_checks.get(event.check, (None, None))[0]
                readers.public_checked(state, event)
                return state.blobs.get(digest) if digest is not None else None
            case _:
                return self._apply_link(event)

    def _apply_link(self, event: Event) -> Blob | None:
        state = self.state
        match event:
            case HashesLearned():
                return swarms.hashes_learned(state, event)
            case HashesConflict():
                return swarms.hashes_conflict(state, event)
            case InlineGranted():
                return leases.granted(state, event)
            case LinkOpened():
                self._link_opened()
            case LinkLost():
                self._link_lost()
            case SharingSwitched(on):
                self._sharing_switched(on)
        return None

    def _received(self, message: Message) -> Blob | None:
        state = self.state
        if not state.linked:
            return None
        match message:
            case Grant():
                return leases.granted(state, message)
            case Cancel():
                leases.cancelled(state, message)
            case NodeKnown():
                self._node_known(message)
            case SwarmOpened():
                return swarms.opened(state, message)
            case OriginStatus():
                return origin.origin_status(state, message)
            case Holders():
                return alone.holders_named(state, message)
            case Voided():
                return swarms.voided(state, message)
            case BlobRefused():
                return readers.blob_refused(state, message)
        return None

    def _of_reader(self, reader: int) -> Blob | None:
        digest = self.state.reader_blobs.get(reader)
        return self.state.blobs.get(digest) if digest is not None else None

    def _node_known(self, message: NodeKnown) -> None:
        try:
            holder = Holder(peer_id_from_bytes(message.peer), message.address)
        except DigestInvalid:
            return
        self.state.nodes[message.node] = holder

    def _follow_up(self, blob: Blob) -> None:
        """Whatever happened to a blob: time limits, the digest when it is whole, plans, the store's pin."""
        state = self.state
        if state.blobs.get(blob.digest) is not blob:
            return
        readers.overdue(state, blob)
        swarms.check_if_whole(state, blob)
        if blob.wanted and not blob.complete:
            alone.plan_swaps(state, blob)
            origin.plan_upstream(state, blob)
        state.settle(blob)

    # --- the link -----------------------------------------------------------------------------------------------

    def _link_opened(self) -> None:
        """Announce everything; stop asking upstream."""
        state = self.state
        state.linked = state.ever_linked = True
        for blob in list(state.blobs.values()):
            origin.stop_upstream(state, blob)
            asking: dict[Source, None] = {
                reader.source: None
                for reader in blob.readers.values()
                if not reader.answered and not reader.failed and not reader.admitted
            }
            blob.wanted = blob.wanted or (bool(asking) and not blob.complete)
            if blob.held or blob.wanted or blob.complete:
                state.announce(blob, None)
            for source in asking:
                if source not in blob.unanswered:
                    state.announce(blob, source)

    def _link_lost(self) -> None:
        """The session's numbers are void; what this node has and whom it knows stay."""
        state = self.state
        if not state.linked:
            return
        state.linked = False
        state.upstream_from = state.now + state.limits.grace_s + state.rng.uniform(0.0, state.limits.grace_jitter_s)
        state.nodes.clear()
        state.swarms.clear()
        state.leases.clear()
        for blob in list(state.blobs.values()):
            blob.unlink()
            for reader in list(blob.readers.values()):
                if not reader.admitted and not reader.failed:
                    readers.ask(state, blob, reader.source)

    def _sharing_switched(self, on: bool) -> None:
        """Off: clients go on from their origins, and nothing moves between peers."""
        state = self.state
        state.sharing = on
        if on:
            return
        for blob in list(state.blobs.values()):
            if not blob.complete:
                leases.give_up(state, blob, "off", "peer-to-peer was turned off on this node")
