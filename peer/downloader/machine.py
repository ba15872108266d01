"""The downloader: what this node fetches, from whom and when, as a pure state machine (proto.machine).

Transitions of a piece on this node:

    MISSING --Grant / own plan (StartFetch, StoreContent, FetchUpstream)--> LEASED
    LEASED  --FetchEnded("") / UpstreamPiece / PieceArrived--> HELD         the hash passed; late successes count
    LEASED  --FetchEnded(reason) / UpstreamEnded, no other transfer--> MISSING
    HELD    --Voided, own digest mismatch, BlobEvicted, PiecesRotten--> MISSING

Each event goes to one rule (readers, leases, swarms, origin, standalone, session). Then the blobs it touched are
planned and settled. It knows no clock, no sockets and no global randomness, and raises nothing for what comes from
outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.downloader import contract, leases, origin, readers, session, standalone, swarms
from peer.downloader.blob import StoreState
from peer.downloader.limits import Limits
from peer.downloader.state import State
from proto.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from peer.downloader.blob import Blob
    from peer.downloader.contract import Command, Event
    from proto.ids import Digest, PeerName
    from proto.wire.messages import Source

_NEVER: Final = float("inf")

# The rule for each event; it returns the blob that is to be planned and settled afterwards, if there is one.
_RULES: Final[dict[type, Callable[..., Blob | None]]] = {
    contract.FetchEnded: leases.fetch_ended,
    contract.ReaderAt: readers.reader_at,
    contract.BlobWanted: readers.blob_wanted,
    contract.ReaderClosed: readers.reader_closed,
    contract.BackgroundDropped: readers.background_dropped,
    contract.PublicChecked: readers.public_checked,
    contract.PieceArrived: leases.piece_arrived,
    contract.PayloadCame: leases.payload_came,
    contract.TransportFailed: leases.transport_failed,
    contract.UpstreamPiece: origin.upstream_piece,
    contract.UpstreamEnded: origin.upstream_ended,
    contract.HashesLearned: swarms.hashes_learned,
    contract.HashesConflict: swarms.hashes_conflict,
    contract.StoreOpened: swarms.store_opened,
    contract.StoreRefused: swarms.store_refused,
    contract.BlobFound: swarms.found,
    contract.BlobEvicted: swarms.evicted,
    contract.PiecesRotten: swarms.pieces_rotten,
    contract.DigestChecked: swarms.digest_checked,
    contract.HoldingsKnown: standalone.holdings_known,
    contract.SupernodeConnected: session.opened,
    contract.SupernodeAnswered: session.answered,
    contract.SupernodeLost: session.lost,
    contract.SharingSwitched: session.sharing_switched,
}
# The same for the supernode's messages. The downloader ignores all others.
_MESSAGE_RULES: Final[dict[type, Callable[..., Blob | None]]] = {
    messages.Grant: leases.granted,
    messages.InlineBlob: leases.granted,
    messages.Cancel: leases.cancelled,
    messages.NodeKnown: session.node_known,
    messages.SwarmOpened: swarms.opened,
    messages.OriginStatus: origin.origin_status,
    messages.Holders: standalone.holders_named,
    messages.Voided: swarms.voided,
    messages.BlobRefused: readers.blob_refused,
}
# After these every blob is looked at.
_CONCERN_ALL: Final = (contract.Wakeup, contract.SupernodeLost, contract.SupernodeConnected, contract.SharingSwitched)
# A transfer or question that ended leaves room for another blob's.
_LEAVE_ROOM: Final = (contract.FetchEnded, contract.HoldingsKnown)


class Downloader:
    """One a node, whose `name` and `rng` are its own; the same events and seed give the same commands."""

    def __init__(self, rng: Random, name: PeerName, limits: Limits | None = None) -> None:
        self.state = State(rng, name, limits or Limits())

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; the commands are to be carried out in order."""
        state = self.state
        if now > state.now:
            state.now = now
        blob: Blob | None = None
        if isinstance(event, contract.Received):
            rule = _MESSAGE_RULES.get(type(event.message)) if state.connected else None
            blob = rule(state, event.message) if rule is not None else None
        elif (rule := _RULES.get(type(event))) is not None:
            blob = rule(state, event)
        if blob is not None:
            self._follow_up(blob)
        elif isinstance(event, _CONCERN_ALL):
            for each in list(state.blobs.values()):
                self._follow_up(each)
        if not state.connected and isinstance(event, _LEAVE_ROOM):
            for each in list(state.busy):
                standalone.plan_swaps(state, each)
        commands, state.out = state.out, []
        return commands

    def _follow_up(self, blob: Blob) -> None:
        """Whatever happened to a blob: time limits, the digest when it is whole, plans, the store's pin."""
        state = self.state
        readers.overdue(state, blob)
        if blob.held == blob.full:
            swarms.check_if_whole(state, blob)
        if blob.wanted and not blob.complete:
            if not state.connected:
                standalone.plan_swaps(state, blob)
            origin.plan_upstream(state, blob)
        state.tell_asked(blob)
        state.settle(blob)

    # --- time ---------------------------------------------------------------------------------------------------

    def next_wakeup(self) -> float | None:
        """The first time at which a rule about time can have something to do."""
        state = self.state
        soonest = _NEVER
        # Asked once a turn of the loop: a store full of blobs that rest must cost nothing here.
        for blob in state.busy:
            soonest = min(soonest, readers.due_at(state, blob))
            if blob.store is StoreState.OPEN:
                if blob.needed_here:
                    soonest = min(soonest, origin.next_turn_at(state, blob))
                if not state.connected:
                    soonest = min([soonest, *self._standalone_times(blob)])
        for blob in state.reader_blobs.values():
            if blob not in state.busy:
                soonest = min(soonest, readers.due_at(state, blob))
        return soonest if soonest < _NEVER else None

    def _standalone_times(self, blob: Blob) -> list[float]:
        state = self.state
        times: list[float] = []
        if blob.ticketed:
            question, rest = blob.holders.next_time(), blob.holders.next_rest_end(state.now)
            if question is not None and len(state.queries) < state.limits.queries_max:
                times.append(question)
            times += [rest] if rest is not None else []
        return times

    # --- questions ----------------------------------------------------------------------------------------------

    def story(self, digest: Digest, piece: int | None = None) -> list[str]:
        """Why a blob, or one piece of it, stands as it does: lines of `time text`, oldest first."""
        blob = self.state.blobs.get(digest)
        if blob is None:
            return []
        return [
            f"{when:.3f} {'' if about is None else f'piece {about}: '}{text % values if values else text}"
            for when, about, text, values in blob.history
            if piece is None or about is None or about == piece
        ]

    def known_size(self, digest: Digest, source: Source, now: float) -> int | None:
        """The size in bytes where the blob is known to be public at that source and its size is known."""
        blob = self.state.blobs.get(digest)
        if blob is None or blob.layout is None or not self.state.sharing or not blob.serves(source.upstream):
            return None
        return blob.layout.size_bytes if self.state.public.get((digest, source), -1.0) > now else None
