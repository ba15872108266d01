"""How a blob becomes a swarm and a peer its member: the cut, what is known from before, what the member is sent.

Pure. Whether the blob is public, and what the store and the saved state have of it, is found out before, by
announcements.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.errors import LayercastError
from proto.ids import PeerId, peer_name
from proto.pieces import PieceLayout, mask_from_bytes, piece_size_at, range_piece_size_for
from proto.wire.messages import SEED_NODE, Announce, Source, Vouched
from supernode.control.verification import SILENT_S
from supernode.scheduler import contract

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.ids import Digest
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.offers import Offers
    from supernode.control.open_swarm import OpenSwarm, SeedBlob
    from supernode.control.participation import Participation
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.control.verification import Verification
    from supernode.state.base import SavedSwarm

logger = logging.getLogger(__name__)

# Clients have been sent headers of a blob after so long (peer.proxy), and would be cut off.
NO_HEADERS_S: Final = 20.0
# Two silent upstreams do not make way for each other all the time.
MADE_WAY_S: Final = 60.0
MADE_WAY_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a peer gets a blob: see SwarmOpened."""

    private: bool = False
    age_s: float = 0.0
    public_at: tuple[Source, ...] = ()


_TO_ANYONE: Final = Terms()


@dataclass(eq=False, slots=True)
class Admission:
    """Opens swarms and lets peers in."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _notifier: Notifier
    _participation: Participation
    _seed_reach: SeedReach
    _verification: Verification
    _offers: Offers
    # Blobs that made way for readers of this upstream, and until when they do not again.
    _made_way: BoundedDict[tuple[Digest, str], float] = field(default_factory=lambda: BoundedDict(MADE_WAY_MAX))
    # Upstreams of which nothing came of this blob, and until when that is taken for their present state.
    _stood_still: BoundedDict[tuple[Digest, str], float] = field(default_factory=lambda: BoundedDict(MADE_WAY_MAX))

    # --- opening a swarm -------------------------------------------------------------------------------------------

    def open(
        self,
        digest: Digest,
        size_bytes: int,
        saved: SavedSwarm | None,
        own: SeedBlob | None,
        opener: str = "",
        *,
        ranges: bool = False,
        usual: bool = False,
        begins_at: str = "",
    ) -> OpenSwarm:
        """Open the swarm of a blob of this size, which must not be open. Raises FrameInvalid where it cannot be cut.

        `ranges`: it is begun by who reads ranges of it; `usual`: by who has pieces of the usual cut; `begins_at`: for
        whom another upstream made way. What was saved, or is in the store, counts where it is of the same size and cut.
        """
        # Whose the bytes are that the store may have: no origin that says another size makes that forgotten.
        private_at = saved.private_at if saved is not None else ()
        if saved is not None and saved.size_bytes != size_bytes:
            saved = None
        if own is not None and own.layout.size_bytes != size_bytes:
            own = None
        layout = own.layout if own is not None else self._layout(digest, size_bytes, saved, ranges=ranges, usual=usual)
        if saved is not None and saved.piece_size_bytes != layout.piece_size_bytes:
            saved = None
        swarm = self._swarms.open(digest, layout, opener)
        swarm.doubted = self._verification.goes_to_origin(digest)
        self._ports.observer.swarms_changed(len(self._swarms))
        if saved is not None and not swarm.restore(saved):
            logger.error("state_damaged digest=%s: what was remembered of it is dropped", digest.short)
            saved = None
        if own is not None and not swarm.adopt(own):
            logger.error("state_contradicts_store digest=%s: remembered hashes dropped", digest.short)
        self._ports.state.save_swarm(digest, layout.size_bytes, layout.piece_size_bytes, self._ports.unix_clock())
        for upstream in private_at:
            swarm.private_at.add(upstream)
            self._ports.state.add_private(digest, upstream)
        if own is not None and own.hashes:
            self._ports.state.add_hashes(digest, own.hashes)
        if begins_at and not swarm.upstream:
            swarm.begin_at(begins_at, self._ports.clock())
        if not layout.count:
            swarm.vouched = True
            return swarm
        swarm.inline = swarm.fits_inline(1, self._ports.uplink_rate())
        self._tell_scheduler(swarm, saved if self._ports.clock() < self._ports.recover_until else None)
        self._verification.check_if_complete(swarm)
        return swarm

    def _layout(
        self, digest: Digest, size_bytes: int, saved: SavedSwarm | None, *, ranges: bool, usual: bool
    ) -> PieceLayout:
        """The cut from before, else our own: for what links carry, and finer for who reads ranges. Raises FrameInvalid.

        Never a peer's: one that says otherwise would have all others drop what they hold. But nodes that began a blob
        while they did not reach us would all drop it, and ask the origin, if it were not cut as they know it.
        """
        if saved is not None:
            return PieceLayout(size_bytes, saved.piece_size_bytes)
        if usual:
            return PieceLayout.of(size_bytes)
        dropped = self._swarms.dropped_cuts.get(digest)
        if dropped is not None and dropped.size_bytes == size_bytes:
            # A node to which something of that is still on its way would stay out of a swarm of another cut.
            return dropped
        if ranges:
            return PieceLayout(size_bytes, range_piece_size_for(size_bytes))
        pace = self._ports.pace()
        if pace is None:
            return PieceLayout.of(size_bytes)
        nodes = len(self._nodes)
        return PieceLayout(size_bytes, piece_size_at(size_bytes, pace.rate_bytes_s, pace.lease_s, nodes))

    def _tell_scheduler(self, swarm: OpenSwarm, recovering: SavedSwarm | None) -> None:
        layout = swarm.layout
        if recovering is not None:
            numbers = (self._nodes.expect(PeerId(peer)) for peer in recovering.holders)
            swarm.recovering = {number for number in numbers if number is not None}
        self._ports.post(
            contract.SwarmOpened(
                swarm.number,
                layout.size_bytes,
                layout.piece_size_bytes,
                seed_held=swarm.seed_held,
                once_ready=swarm.hashes.known & ~swarm.seed_held if recovering is not None else 0,
                recover_until=self._ports.recover_until,
                recover_peers=tuple(sorted(swarm.recovering)),
                inline=swarm.inline,
            )
        )
        logger.info(
            "swarm_opened digest=%s swarm=%d bytes=%d pieces=%d held=%d hashes=%d awaited=%d",
            swarm.digest.short, swarm.number, layout.size_bytes, layout.count, swarm.seed_held.bit_count(),
            swarm.hashes.known.bit_count(), len(swarm.recovering),
        )  # fmt: skip

    # --- one upstream after the other ------------------------------------------------------------------------------

    def whole_in_s(self, swarm: OpenSwarm) -> float:
        """In how long all of it is here."""
        return swarm.whole_in_s(self._ports.clock())

    def makes_way(self, swarm: OpenSwarm, upstream: str) -> bool:
        """Drop a swarm of which nothing came, for readers that named this upstream. False while it may yet serve them.

        Raises LayercastError where to wait is no use: they have it from the origin that they named.
        """
        now, digest = self._ports.clock(), swarm.digest
        # Nobody is in it yet: they come in a moment for whom the one before made way.
        begun = not swarm.members and now - swarm.upstream_since_s < SILENT_S
        if begun or swarm.silent_s(now) < SILENT_S:
            return False
        began_lately = now - swarm.upstream_since_s < NO_HEADERS_S and now >= self._made_way.get(
            (digest, upstream), 0.0
        )
        if swarm.wanted_by and not (swarm.empty and began_lately):
            if self.stood_still(digest, upstream):
                # Nor would they have it from their own: what took its place may need a moment to begin.
                return False
            raise LayercastError(f"blob {digest.short} comes from {swarm.upstream}, of which nothing comes now")
        logger.info("swarm_made_way digest=%s upstream=%s for=%s", digest.short, swarm.upstream or "-", upstream)
        self._made_way[digest, upstream] = now + MADE_WAY_S
        if swarm.wanted_by:
            # Nor does the next one make way for that which stands still now.
            self._made_way[digest, swarm.upstream] = self._stood_still[digest, swarm.upstream] = now + MADE_WAY_S
        self._participation.drop_all(swarm, f"blob {digest.short}: nothing came from {swarm.upstream}")
        self._ports.seed.void(digest)
        return True

    def stood_still(self, digest: Digest, upstream: str) -> bool:
        """Whether nothing of the blob came of this upstream lately, so that another took its place."""
        return self._ports.clock() < self._stood_still.get((digest, upstream), 0.0)

    def contradict(self, session: PeerSession, swarm: OpenSwarm, size_bytes: int) -> None:
        """A member says that the origin has another size. Once more say so than are in the swarm, that is dropped.

        Raises LayercastError until then: nobody here asked the origin. One that lies keeps none from sharing, as two
        others are more; and puts out no two that say the same.
        """
        swarm.contradicted_by[session.info.peer] = size_bytes
        against = {
            peer
            for peer, said_bytes in swarm.contradicted_by.items()
            if said_bytes == size_bytes and self._nodes.session_of(peer) is not None
        }
        members = {each.info.peer for each in self._nodes.sessions_of(swarm.members)} - against
        digest, here_bytes = swarm.digest, swarm.layout.size_bytes
        if len(against) <= len(members):
            raise LayercastError(f"blob {digest.short} has {here_bytes} bytes by others' word, not {size_bytes}")
        logger.warning("size_contradicted digest=%s bytes=%d now=%d", digest.short, here_bytes, size_bytes)
        self._participation.drop_all(swarm, f"blob {digest.short}: more members say that it has {size_bytes} bytes")
        self._ports.seed.void(digest)

    def make_private(self, swarm: OpenSwarm, upstreams: Iterable[str]) -> None:
        """The bytes of a swarm that nobody is in yet will come from there, privately."""
        for upstream in upstreams:
            swarm.begin_at(upstream, self._ports.clock())
            swarm.private_at.add(upstream)
            self._ports.state.add_private(swarm.digest, upstream)

    # --- members ---------------------------------------------------------------------------------------------------

    def enter(
        self,
        session: PeerSession,
        swarm: OpenSwarm,
        announce: Announce,
        public: Iterable[Source],
        terms: Terms = _TO_ANYONE,
    ) -> None:
        """A peer announced the blob, which these sources give to anyone, or to clients of that peer; answer it.

        Raises FrameInvalid.
        """
        held = _held(swarm, announce)
        quarantined = self._nodes.is_quarantined(session.info.peer)
        public = list(public)
        if announce.wanted and public and not swarm.wanted_by:
            swarm.begin_at(swarm.upstream or public[0].upstream, self._ports.clock())
        self._add_sources(swarm, public)
        session.announced[swarm.digest] = swarm.number
        swarm.contradicted_by.pop(session.info.peer, None)
        if announce.wanted and announce.trace:
            swarm.trace = announce.trace
        new = session.node not in swarm.members
        member = swarm.join(session.node, peer_name(session.info.peer), held=held, wanted=announce.wanted)
        if announce.wanted and swarm.origin_state == "queued":
            for fetch_id in swarm.fetches:
                self._ports.seed.also_wanted(fetch_id, member.name)
        member.private = terms.private or swarm.private
        member.upstreams |= {source.upstream for source in public}
        if quarantined:
            swarm.mistrust(session.node)
        if held and not quarantined:
            self._participation.remember_holder(session, swarm)
        else:
            self._participation.forget_holder(session, swarm)
        self._answer(session, swarm, member, terms)
        if new and not swarm.inline and swarm.holders.is_owner(session.node):
            # If the supernode were lost now, who does not know it would ask the origin for its spans, too.
            self._notifier.send_holders_to_all(swarm)
        if not swarm.layout.count:
            return
        # Before what it wants: the origin is not to be asked for what it has.
        self._offers.announced(session, swarm, member, _fetching(swarm, announce) & ~held)
        self._ports.post(
            contract.PeerAnnounced(
                swarm.number, session.node, member.held, announce.wanted, announce.ranges, announce.background
            )
        )
        self._seed_reach.review(swarm)
        if swarm.returned(session.node):
            self._ports.post(contract.RecoveryPeerReturned(swarm.number, session.node))

    def _add_sources(self, swarm: OpenSwarm, public: Iterable[Source]) -> None:
        for source in swarm.add_sources(public):
            if source.upstream == swarm.upstream:  # of the others it would not be known that they came later
                self._ports.state.add_source(swarm.digest, source)

    def _answer(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, terms: Terms) -> None:
        """The answer to an announcement, and what a member that wants the blob needs to begin."""
        if member.wanted and swarm.layout.count > 1 and self._ports.delivery.leases_pieces:
            # It can connect before its first lease comes.
            self._notifier.introduce(session, SEED_NODE)
        self._notifier.send_opened(session, swarm, member, terms.age_s, terms.public_at)
        if member.wanted:
            session.wanting.add(swarm.number)
            if not swarm.inline:
                # The content of a tiny blob comes whole with the first grant, and its hash is sent after it: its own
                # digest is what it is checked by. The next refresh names the others, if not.
                self._notifier.send_hashes(session, swarm, member)
                self._notifier.send_holders(session, swarm, member)
        else:
            session.wanting.discard(swarm.number)
        if swarm.vouched:
            session.send(Vouched(swarm.number))
        self._ports.delivery.member_entered(session, swarm, member)


def _held(swarm: OpenSwarm, announce: Announce) -> int:
    """The announced pieces; none of another cut. Raises FrameInvalid."""
    return _mask(swarm, announce, announce.held)


def _fetching(swarm: OpenSwarm, announce: Announce) -> int:
    """The same of the pieces that it fetches by itself."""
    return _mask(swarm, announce, announce.fetching)


def _mask(swarm: OpenSwarm, announce: Announce, pieces: bytes) -> int:
    if not pieces or (announce.size_bytes, announce.piece_size_bytes) != (
        swarm.layout.size_bytes,
        swarm.layout.piece_size_bytes,
    ):
        return 0
    return mask_from_bytes(pieces, swarm.layout.count)
