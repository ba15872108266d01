"""Whether a blob is what its digest says, and what follows: vouched for, or voided. Takes the seed's reports. Pure.

Reading and hashing is the seed's work (SeedWork), in threads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from peer.transport.base import PieceSource
from proto.bounded_dict import BoundedDict
from proto.ids import peer_name, short_peer
from proto.pieces import mask_of
from proto.wire.messages import FetchReason, Source, Vouched
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from proto.ids import Digest, PeerId
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.participation import Participation
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.swarm_registry import SwarmRegistry

logger = logging.getLogger(__name__)

K = TypeVar("K")

# An origin of which nothing came for so long is silent: readers that named another one wait no longer for it.
SILENT_S: Final = 0.5
# A source whose blob did not match its digest so many times is not asked for it again for VOIDED_S.
VOIDS_MAX: Final = 2
VOIDED_S: Final = 600.0
VOIDED_MAX: Final = 10_000
# Pieces that the seed fetches at a time to look at whoever was accused of corrupt bytes, and how often from one.
PROBES_MAX: Final = 2
PROBE_EVERY_S: Final = 30.0


@dataclass(eq=False, slots=True)
class Verification:
    """One a supernode."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _participation: Participation
    # (source, digest) to how often it was voided and until when that counts.
    _voided: BoundedDict[tuple[Source, Digest], tuple[int, float]] = field(
        default_factory=lambda: BoundedDict(VOIDED_MAX)
    )
    # Who is looked at because of an accusation now, and who was, until when it is not looked at again.
    _probing: set[PeerId] = field(default_factory=set)
    _probed: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(VOIDED_MAX))
    # Blobs of which wrong content came, and until when the origin is asked first for them.
    _origin_first: BoundedDict[Digest, float] = field(default_factory=lambda: BoundedDict(VOIDED_MAX))
    # Members that did not give what they had offered, and until when nothing of theirs is tried.
    _useless: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(VOIDED_MAX))
    # Members by whose word pieces went to others, and that was not the blob; until when none goes by theirs.
    _mistaken: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(VOIDED_MAX))

    def times_voided(self, source: Source, digest: Digest) -> int:
        """How often this source's content was not the blob, lately."""
        times, until = self._voided.get((source, digest), (0, 0.0))
        return times if self._ports.clock() < until else 0

    def goes_to_origin(self, digest: Digest) -> bool:
        """Whether nothing that members offer of this blob is taken now."""
        return self._ports.clock() < self._origin_first.get(digest, 0.0)

    def takes_word_of(self, session: PeerSession, swarm: OpenSwarm) -> bool:
        """Whether what this member has from the origin goes to others before the digest has passed anywhere.

        Of a blob in one piece that would be no sooner.
        """
        peer = session.info.peer
        return (
            swarm.elected == session.node
            and swarm.layout.count > 1
            and self._ports.delivery.leases_pieces
            and not (swarm.doubted or self.goes_to_origin(swarm.digest) or self._nodes.is_quarantined(peer))
            and self._ports.clock() >= self._mistaken.get(peer, 0.0)
        )

    def check_if_complete(self, swarm: OpenSwarm) -> None:
        """Start the digest check once every piece is in the store."""
        if swarm.check_due():
            self._ports.seed.check(swarm)

    def _vouch(self, swarm: OpenSwarm) -> None:
        """The blob matched its digest here."""
        news = swarm.digest_matched()
        self._drop_wrong_givers(swarm)
        self._ports.state.vouch(swarm.digest, swarm.hashes.run(0, swarm.layout.count - 1))
        if news:
            for session in self._nodes.sessions_of(swarm.members):
                # Each node goes by its own digest check: this is not worth a frame of its own.
                session.channel.send(Vouched(swarm.number), soon=False)
                if swarm.claims.ever and swarm.members[session.node].wanted:
                    # What its clients were not given so far, they may have.
                    session.hashes_due.add(swarm.number)

    def _void(self, swarm: OpenSwarm) -> None:
        """The blob did not match its digest: nothing of it counts, and whoever brought it is remembered."""
        message = f"blob {swarm.digest.short} did not match its digest"
        blamed = [source for source in swarm.sources if source.upstream == swarm.upstream]
        logger.error("blob_voided digest=%s source=%s", swarm.digest.short, swarm.upstream or "-")
        for source in blamed:
            self._blame(source, swarm.digest)
        self._ask_origin_first(swarm.digest)
        self._participation.drop_all(swarm, message)

    def _contradicted(self, swarm: OpenSwarm) -> None:
        """What just came has another hash than was known of the piece: one of the two is wrong, so none counts."""
        logger.error("hashes_contradict digest=%s: the blob is begun anew", swarm.digest.short)
        self._ask_origin_first(swarm.digest)
        self._participation.drop_all(swarm, f"blob {swarm.digest.short}: a piece has two different hashes")
        self._ports.seed.void(swarm.digest)

    def _ask_origin_first(self, digest: Digest) -> None:
        self._remember(self._origin_first, digest)

    def _remember(self, table: BoundedDict[K, float], key: K) -> None:
        """For VOIDED_S from now."""
        table[key] = self._ports.clock() + VOIDED_S

    def _blame(self, source: Source, digest: Digest) -> None:
        self._ports.forget_public(source, digest)
        times = self.times_voided(source, digest) + 1
        self._voided[source, digest] = (times, self._ports.clock() + VOIDED_S)

    # --- what the seed reports -----------------------------------------------------------------------------------

    def seed_stored(self, swarm: int, piece: int, piece_hash: bytes, content: bytes | None) -> None:
        """A piece came from the origin; `content` is the whole blob where it was to be read back."""
        found = self._swarms.numbered(swarm)
        if found is None:
            return
        if not found.hashes.agrees(piece, piece_hash):
            self._contradicted(found)
            return
        self._end_claim(found, piece, piece_hash)
        self._participation.learn_hashes(found, piece, piece_hash)
        self._swarms.count_fetched(found, piece)
        found.seed_stored(piece, self._ports.clock(), content)
        if not found.seed_out_of_reach:
            self._ports.post(contract.PieceStored(swarm, SEED, piece))
        self.check_if_complete(found)

    def offers_tried(
        self,
        digest: Digest,
        given: dict[int, tuple[PeerId, bytes]],
        refused: frozenset[PeerId],
        matches: bool | None,
    ) -> None:
        """What members offer of a blob was asked for: by piece who gave it, and its hash; and who gave nothing of it.

        `matches`: whether the blob that this and the store's pieces make is what its digest says; None: not compared.
        """
        givers = {peer for peer, _ in given.values()}
        for peer in refused - givers:
            self._remember(self._useless, peer)
        swarm = self._swarms.of(digest)
        if matches and swarm is not None:
            swarm.brought |= mask_of(given)
        if matches is not False:
            return
        self._ask_origin_first(digest)
        logger.warning("offers_dropped digest=%s peers=%s", digest.short, ",".join(sorted(map(short_peer, givers))))
        if swarm is not None and swarm.claims.pieces:
            # Others took them for the blob. Nobody else may have made them, so that nobody else is to blame.
            for author in swarm.claims.authors():
                self._was_mistaken(author, digest)
            self._participation.drop_all(swarm, f"blob {digest.short}: what a member fetched was other content")
        elif swarm is not None:
            swarm.doubt(given)
            self._participation.forget_offers(swarm)

    def _was_mistaken(self, author: PeerId, digest: Digest) -> None:
        """It may have taken in good faith what a lying origin sent: what it fetches is spread after the digest now."""
        logger.warning("claim_wrong peer=%s digest=%s", short_peer(author), digest.short)
        self._remember(self._mistaken, author)

    def _end_claim(self, swarm: OpenSwarm, piece: int, piece_hash: bytes) -> None:
        """The piece is known now. Who holds another one by a claim drops what it has, and is to blame for nothing."""
        claim = swarm.claims.end(piece)
        if claim is None or claim.piece_hash == piece_hash:
            return
        self._was_mistaken(claim.author, swarm.digest)
        for session in self._nodes.sessions_of(swarm.members):
            if swarm.members[session.node].name in claim.holders:
                self._participation.drop(session, swarm, f"blob {swarm.digest.short}: what you have is other content")

    def gives_nothing(self, peer: PeerId) -> bool:
        """Whether it offered pieces lately and did not give them."""
        return self._ports.clock() < self._useless.get(peer, 0.0)

    def _drop_wrong_givers(self, swarm: OpenSwarm) -> None:
        """What is right is known now: who gave something else drops what it has.

        It is not put aside: it may have taken in good faith what a lying origin sent.
        """
        for peer in swarm.wrong_givers():
            logger.warning("offer_wrong peer=%s digest=%s: it drops its pieces", short_peer(peer), swarm.digest.short)
            session = self._nodes.session_of(peer)
            if session is not None:
                self._participation.drop(session, swarm, f"blob {swarm.digest.short}: what you have is other content")
        swarm.given.clear()

    def origin_began(self, fetch_id: int, swarm: int) -> None:
        """A fetch from the origin has had its turn."""
        found = self._swarms.numbered(swarm)
        if found is not None:
            found.fetch_runs(fetch_id)

    def origin_moved(self, swarm: int) -> None:
        """Bytes come from the origin."""
        found = self._swarms.numbered(swarm)
        if found is not None:
            found.origin_moved_s = self._ports.clock()

    def ask_elsewhere(self, swarm: OpenSwarm, upstreams: set[str]) -> None:
        """Who wants the blob named these, and the origin that is asked now is silent: the next one's turn."""
        if (
            swarm.sources
            and swarm.sources[0].upstream not in upstreams
            and swarm.silent_s(self._ports.clock()) >= SILENT_S
        ):
            for fetch_id in swarm.fetches:
                self._ports.seed.cancel_origin(fetch_id)

    def origin_ended(
        self, fetch_id: int, swarm: int, *, ok: bool, refused: str = "", retry_after_s: float = 0.0
    ) -> None:
        """A fetch from the origin is over. `refused`: the origin decided against it, in words; nobody else need try.
        `retry_after_s`: it wants no questions about the blob for so long.

        What nobody has anything of is then begun anew, as the origin's last word has it.
        """
        found = self._swarms.numbered(swarm)
        if found is None:
            return
        # That it was told to end is nobody's failure.
        ended_early = fetch_id in found.fetches_ending and not retry_after_s
        if not (ok or ended_early) and fetch_id in found.fetches and not found.seed_out_of_reach and found.wanted_by:
            pieces = found.fetch_pieces & ~found.seed_held
            if pieces and found.next_upstream():
                self._ports.seed.fetch_from_origin(fetch_id, found, pieces, {})
                return
        if refused and fetch_id in found.fetches and not (found.seed_held or found.pieces_held):
            self._participation.drop_all(found, refused)
        elif found.fetch_ended(fetch_id, ok=ok or ended_early):
            if retry_after_s:
                found.leave_origin(self._ports.clock() + retry_after_s)
            self._ports.post(contract.OriginEnded(fetch_id, swarm, ok, retry_after_s))
            self._participation.settle(found)

    def probe(self, swarm: OpenSwarm, piece: int, accused: PeerSession) -> None:
        """A member says that this one serves corrupt bytes: fetch the piece from it ourselves, some at a time.

        Each accused once in a while: members could have pieces fetched without end.
        """
        peer, now_s = accused.info.peer, self._ports.clock()
        piece_hash = swarm.hashes.hash_of(piece)
        if piece_hash is None or len(self._probing) >= PROBES_MAX or now_s < self._probed.get(peer, 0.0):
            return
        self._probing.add(peer)
        self._probed[peer] = now_s + PROBE_EVERY_S
        source = PieceSource(peer_name(peer), accused.info.address, swarm.private)
        self._ports.seed.probe(swarm, piece, piece_hash, peer, source)

    def probed(self, digest: Digest, piece: int, peer: PeerId, reason: str) -> None:
        """The seed fetched a piece from a peer that was accused; `reason` is a FetchReason, empty on success."""
        self._probing.discard(peer)
        if reason == FetchReason.CORRUPT:
            self._participation.quarantine(
                peer, f"served piece {piece} of blob {digest.short} corrupt to the supernode"
            )
        else:
            logger.info("accusation_ignored source=%s probe=%s", short_peer(peer), reason or "right")

    def seed_lease_ended(
        self, lease_id: int, swarm: int, piece: int, reason: str, elapsed_s: float, stored_bytes: int, peer: PeerId
    ) -> None:
        """A transfer from a peer is over; `reason` is a FetchReason, empty on success."""
        if reason == FetchReason.CORRUPT:
            self._participation.quarantine(peer, f"served piece {piece} corrupt to the supernode")
        if reason:
            self._ports.observer.lease_ended(lease_id, "failed")
            self._ports.post(contract.FetchFailed(lease_id, FailReason(reason)))
            return
        self._ports.observer.lease_ended(lease_id, "stored")
        self._ports.observer.received_from_peer(stored_bytes)
        found = self._swarms.numbered(swarm)
        if found is not None:
            found.seed_stored(piece, self._ports.clock())
            self._ports.post(contract.PieceStored(swarm, SEED, piece, lease_id, elapsed_s))
            self.check_if_complete(found)

    def blob_checked(self, swarm: int, matches: bool | None) -> None:
        """The digest was compared. None: the disk failed, nothing is known."""
        found = self._swarms.numbered(swarm)
        if matches is not None:
            self._ports.observer.digest_checked(matches=matches)
        if found is None:
            return
        found.check_ended()
        if matches is False:
            self._void(found)
            return
        if matches:
            self._vouch(found)
            self._ports.delivery.blob_verified(found)
        self._participation.settle(found)

    def blob_evicted(self, digest: Digest) -> None:
        """The store let go of a blob."""
        found = self._swarms.of(digest)
        if found is not None and found.seed_held:
            self._ports.post(contract.PieceEvicted(found.number, SEED, found.seed_evicted()))

    def pieces_rotten(self, digest: Digest, pieces: int) -> None:
        """Pieces (mask) rotted in the store, which dropped them; the rest of the blob stands."""
        found = self._swarms.of(digest)
        lost = found.seed_lost(pieces) if found is not None else 0
        if found is not None and lost:
            self._ports.post(contract.PieceEvicted(found.number, SEED, lost))
