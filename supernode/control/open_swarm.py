"""The supernode's account of one open swarm: cut, sources, hashes, members, and how its origin does. Plain data.

All transitions are methods here. What follows from them (events, messages, saved state) is for the callers:
participation, admission, message_handler, command_handler and verification. Lives on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.ids import PeerId, PeerName, peer_name
from supernode.control.claims import Claims
from supernode.control.named_holders import NamedHolders
from supernode.control.swarm_member import SwarmMember
from supernode.control.traffic import Demand, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Source
    from supernode.control.piece_hashes import BlobHashes
    from supernode.state.base import SavedSwarm

# A tiny blob travels in control messages while that takes at most this much of the uplink's time.
INLINE_UPLINK_S: Final = 0.05
INLINE_BYTES_MAX: Final = 64 * 1024
# Places to ask for one blob: each may have to fail before the next is asked.
SOURCES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class SeedBlob:
    """What the store has of a blob. `hashes` are runs (first, concatenated hashes) of exactly the held pieces."""

    layout: PieceLayout
    held: int
    complete: bool
    hashes: tuple[tuple[int, bytes], ...]
    content: bytes | None


@dataclass(slots=True, eq=False)
class OpenSwarm:
    """All that goes on for one blob, as the supernode's control sees it."""

    number: int
    digest: Digest
    layout: PieceLayout
    hashes: BlobHashes
    # The address of the node that it was opened for.
    opener: str = ""
    sources: list[Source] = field(default_factory=list)
    # Upstreams that the bytes come from privately; empty for public bytes.
    private_at: set[str] = field(default_factory=set)
    members: dict[int, SwarmMember] = field(default_factory=dict)
    # Which other size of a private blob a peer said last; one entry a peer.
    contradicted_by: dict[PeerId, int] = field(default_factory=dict)
    # How many members want it.
    wanted_by: int = 0
    vouched: bool = False
    # The supernode's own pieces.
    seed_held: int = 0
    # The digest of the supernode's own copy is being compared, or was and matched.
    checking: bool = False
    seed_checked: bool = False
    # The store keeps it from eviction because somebody wants it.
    pinned: bool = False
    # None of those who want it reaches the supernode's upload port.
    seed_out_of_reach: bool = False
    # Whose bytes fill it until its digest has passed: only nodes whose clients named this upstream are given any. Since
    # when, and when its origin last sent something.
    upstream: str = ""
    upstream_since_s: float = float("-inf")
    origin_moved_s: float = float("-inf")
    # The pieces that the fetch which runs was for, and the upstreams that it asked in vain.
    fetch_pieces: int = 0
    givers: frozenset[PeerId] = frozenset()
    upstreams_tried: set[str] = field(default_factory=set)
    # An OriginStatus state while a fetch from the origin is not done, and the fetches that run now.
    origin_state: str = ""
    fetches: set[int] = field(default_factory=set)
    # Those of them that were told to end, for other pieces of the blob.
    fetches_ending: set[int] = field(default_factory=set)
    # Until when the origin wants no questions about the blob.
    origin_free_s: float = 0.0
    # The member that tries the origin for all, and for which pieces (mask).
    elected: int | None = None
    elected_pieces: int = 0
    # When somebody last stored a piece of it, or the delivery last got on.
    moved_s: float = float("-inf")
    # The span of the client's request that it was last wanted for; see Announce.
    trace: bytes = b""
    # The blob travels in messages; and the whole of it, once it is here.
    inline: bool = False
    content: bytes | None = None
    # Peers recorded as holders before the restart, by number, until they announce again.
    recovering: set[int] = field(default_factory=set)
    # Peers that the saved state has as holders.
    recorded: set[PeerId] = field(default_factory=set)
    claims: Claims = field(default_factory=Claims)
    # What members offered of it was not the blob: nothing that they claim counts, but pieces that one gave as they are.
    # By piece who gave it to the seed, and its hash.
    doubted: bool = False
    given: dict[int, tuple[PeerId, bytes]] = field(default_factory=dict)
    # Pieces (mask) that the seed brings from members, since together they are the blob.
    brought: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    # None until somebody waits for it.
    demand: Demand | None = None
    # Those of the members that others are told of.
    holders: NamedHolders = field(init=False)

    def __post_init__(self) -> None:
        self.holders = NamedHolders(self.digest)

    # --- what is so ------------------------------------------------------------------------------------------------

    @property
    def seed_complete(self) -> bool:
        """The supernode holds every piece (its digest may not be checked yet)."""
        return self.seed_held == self.layout.full_mask

    @property
    def pieces_held(self) -> int:
        """By all members together."""
        return sum(member.held.bit_count() for member in self.members.values())

    @property
    def idle(self) -> bool:
        """Nobody is in it, and nothing of it is under way."""
        return not (self.members or self.fetches or self.checking)

    def fits_inline(self, waiting: int, uplink_bytes_s: float) -> bool:
        """Whether sending the blob to so many peers inside messages stays within its share of the uplink."""
        size_bytes = self.layout.size_bytes
        return size_bytes <= INLINE_BYTES_MAX and waiting * size_bytes <= uplink_bytes_s * INLINE_UPLINK_S

    def source_sends_hash(self, source: int, piece: int) -> bool:
        """Whether this node (0: the seed) sends the piece's hash with the piece: so hashes cost nothing of our link."""
        member = self.members.get(source)
        return source == 0 or (member is not None and member.passes_on >> piece & 1 == 1)

    # --- from before -----------------------------------------------------------------------------------------------

    def restore(self, saved: SavedSwarm) -> bool:
        """Take in what was saved of it, of the same cut. False where it makes no sense: its file is damaged, and none
        of it counts.
        """
        try:
            for first, hashes in saved.hashes:
                self.hashes.learn(first, hashes)
        except (ValueError, TypeError):
            self.hashes.clear()
            return False
        self.vouched = saved.vouched
        if saved.sources:
            self.upstream = saved.sources[0].upstream
        self.recorded.update(PeerId(peer) for peer in saved.holders)
        return True

    def adopt(self, own: SeedBlob) -> bool:
        """Take in what the store holds. False if remembered hashes differ: those are dropped."""
        agrees = all(self.hashes.agrees(first, hashes) for first, hashes in own.hashes)
        if not agrees:
            self.hashes.clear()
            self.vouched = False
        for first, hashes in own.hashes:
            self.hashes.learn(first, hashes)
        self.seed_held = own.held
        self.content = own.content
        self.vouched = self.vouched or own.complete
        self.seed_checked = own.complete
        return agrees

    # --- members ---------------------------------------------------------------------------------------------------

    def join(self, node: int, name: PeerName, *, held: int, wanted: bool) -> SwarmMember:
        """A node announced what it holds (mask) and whether it wants the rest; the member is made the first time."""
        member = self.members.get(node)
        if member is None:
            member = self.members[node] = SwarmMember(name, wanted=False)
            self.holders.add(node, name)
        self._want(member, wanted)
        counted = self.hashes.known | self.claims.held_by(name)
        member.held, member.unproven = held & counted, held & ~counted
        return member

    def leave(self, node: int) -> bool:
        """Forget the member. False if it was none."""
        member = self.members.pop(node, None)
        if member is None:
            return False
        self._want(member, False)
        self.mistrust(node)
        return True

    def leave_all(self) -> None:
        """Nobody is in it any more: the blob was voided."""
        self.members.clear()
        self.wanted_by = 0
        self.holders.clear()
        self.fetches.clear()
        self.given.clear()
        self.claims.clear()

    def mistrust(self, node: int) -> None:
        """Name this node to nobody any more."""
        self.holders.remove(node)

    def trust(self, node: int) -> None:
        """Inverse of mistrust(): name it again, if it is a member."""
        if node in self.members:
            self.holders.add(node, self.members[node].name)

    def returned(self, node: int) -> bool:
        """A node announced. Whether it was recorded as a holder before the restart, and expected back."""
        expected = node in self.recovering
        self.recovering.discard(node)
        return expected

    def record_holder(self, peer: PeerId, *, holds: bool) -> bool:
        """Whether what the saved state has of this peer must change for it."""
        if (peer in self.recorded) is holds:
            return False
        if holds:
            self.recorded.add(peer)
        else:
            self.recorded.discard(peer)
        return True

    def wanted_changed(self, now: float) -> bool:
        """Whether somebody wants it now and nobody did before, or the other way round; `pinned` says which."""
        before, self.pinned = self.pinned, self.layout.count > 0 and self.wanted_by > 0
        if self.pinned and not before:
            self.demand = Demand(
                now, self.traffic.received, cold=not any(member.held for member in self.members.values())
            )
        return before is not self.pinned

    def begin_at(self, upstream: str, now: float) -> None:
        """Until the digest has passed, its bytes come from there alone."""
        self.upstream, self.upstream_since_s = upstream, now

    def add_sources(self, sources: Iterable[Source]) -> list[Source]:
        """The blob may be asked there. Returns those that are new; the first SOURCES_MAX are kept.

        While no digest vouches for it, those of its own upstream alone.
        """
        own = [source for source in sources if self.vouched or source.upstream == self.upstream]
        added = [source for source in own if source not in self.sources][: SOURCES_MAX - len(self.sources)]
        self.sources += added
        return added

    # --- pieces ----------------------------------------------------------------------------------------------------

    def stored_by(self, member: SwarmMember, piece: int, now: float) -> bool:
        """A member stored a piece. Whether its hash is known here; else it counts once it is."""
        bit = 1 << piece
        member.failing = False
        if not (member.held | member.unproven) & bit:
            # What it said before is no news of the swarm.
            self.moved_s = now
            if member.held | member.unproven | bit == self.layout.full_mask:
                self._want(member, False)
        claim = self.claims.of(piece)
        if not (self.hashes.known & bit or (claim is not None and member.name in claim.holders)):
            member.unproven |= bit
            return False
        member.held |= bit
        return True

    def claim(self, member: SwarmMember, author: PeerId, piece: int, piece_hash: bytes) -> None:
        """The member has the piece from the origin. The first word counts as long as somebody has the piece by it."""
        counts = self.claims.of(piece) is not None and any(other.held >> piece & 1 for other in self.members.values())
        self.claims.make(member.name, author, piece, piece_hash, anew=not counts)

    def _want(self, member: SwarmMember, wanted: bool) -> None:
        if member.wanted is not wanted:
            member.wanted = wanted
            self.wanted_by += 1 if wanted else -1

    def learn_hash(self, piece: int, piece_hash: bytes) -> list[int]:
        """A piece's hash became known. Returns the nodes that said before that they hold it: now that counts.

        Where claims are doubted, that of the node alone that gave the piece as it is.
        """
        self.hashes.learn(piece, piece_hash)
        bit, proven = 1 << piece, []
        giver, given_hash = self.given.get(piece, (None, b""))
        right = peer_name(giver) if giver is not None and given_hash == piece_hash else None
        for node, member in self.members.items():
            if member.unproven & bit and (not self.doubted or member.name == right):
                member.unproven ^= bit
                member.held |= bit
                proven.append(node)
        return proven

    def doubt(self, given: dict[int, tuple[PeerId, bytes]]) -> None:
        """What members gave of it, together with what was here, is not the blob."""
        self.doubted, self.given = True, given

    def wrong_givers(self) -> set[PeerId]:
        """Who gave another piece than the known hashes say."""
        return {peer for piece, (peer, given) in self.given.items() if self.hashes.hash_of(piece) not in (None, given)}

    def seed_stored(self, piece: int, now: float, content: bytes | None = None) -> None:
        """The supernode stored a piece; `content` is the blob where that was read back and is whole."""
        self.seed_held |= 1 << piece
        self.moved_s = now
        if content is not None and self.seed_complete:
            self.content = content

    def got_on(self, now: float) -> None:
        """Pieces come, though not by leases."""
        self.moved_s = now

    def seed_lost(self, pieces: int) -> int:
        """Pieces (mask) rotted in the store and were dropped. Returns those that it held."""
        lost = self.seed_held & pieces
        if lost:
            self.seed_held, self.content, self.seed_checked = self.seed_held & ~lost, None, False
        return lost

    def seed_evicted(self) -> int:
        """The store let go of it. Returns the pieces (mask) that it held."""
        pieces, self.seed_held, self.content, self.seed_checked = self.seed_held, 0, None, False
        return pieces

    # --- the origin ------------------------------------------------------------------------------------------------

    @property
    def all_wanting(self) -> list[PeerName]:
        """The members that want it, first the one that wants it for the longest: a fetch begins in any one's turn."""
        return [member.name for member in self.members.values() if member.wanted]

    def fetch_began(self, fetch_id: int, pieces: int = 0, givers: frozenset[PeerId] = frozenset()) -> None:
        """The supernode is to ask the origin that most of those who want the blob named, when that one's turn comes.

        `givers`: members that are asked first for what they offer.
        """
        self.givers = givers
        self.fetches.add(fetch_id)
        self.fetch_pieces = pieces
        self.upstreams_tried.clear()
        wanting = [member.upstreams for member in self.members.values() if member.wanted]
        self.sources.sort(key=lambda source: -sum(source.upstream in named for named in wanting))
        self.elected = None
        self.origin_state, self.origin_free_s = "queued", 0.0

    @property
    def fetch_sources(self) -> tuple[Source, ...]:
        """Where a fetch asks now: the places of one upstream."""
        return tuple(source for source in self.sources if source.upstream == self.sources[0].upstream)

    def next_upstream(self) -> bool:
        """The upstream that was asked failed: the next one's turn. False once each had its own."""
        if not self.sources:
            return False
        failed = self.sources[0].upstream
        self.upstreams_tried.add(failed)
        self.sources.sort(key=lambda source: source.upstream in self.upstreams_tried)
        return self.sources[0].upstream not in self.upstreams_tried

    @property
    def private(self) -> bool:
        """Its bytes go to members alone whose clients these upstreams allow, and by TLS alone."""
        return bool(self.private_at)

    @property
    def untouched(self) -> bool:
        """Nobody is in it, and no byte of it is here or on its way."""
        return not (self.members or self.seed_held or self.fetches)

    def serves(self, upstreams: set[str]) -> bool:
        """Whether a reader that named these may have what is here: others' bytes only once the digest has passed."""
        return self.vouched or not self.upstream or self.upstream in upstreams

    def public_elsewhere(self, upstreams: set[str]) -> list[Source]:
        """The places where its bytes, public ones, came from, if those are of none of these upstreams."""
        if self.private or not self.vouched or self.empty or self.upstream in upstreams:
            return []
        return [source for source in self.sources if source.upstream == self.upstream]

    def silent_s(self, now: float) -> float:
        """For how long nothing of it came, infinite where nobody wants it; 0 while the digest is being compared."""
        if self.checking:
            return 0.0
        moved_s = max(self.upstream_since_s, self.origin_moved_s, self.moved_s)
        return now - moved_s if self.wanted_by else float("inf")

    def whole_in_s(self, now: float) -> float:
        """In how long the supernode has all of it, at the rate since it was first wanted; infinite if it has none."""
        held = self.seed_held.bit_count()
        return (self.layout.count - held) * (now - self.upstream_since_s) / held if held else float("inf")

    @property
    def empty(self) -> bool:
        """Nobody has anything of it, as far as is known."""
        return not self.seed_held and not any(member.held | member.unproven for member in self.members.values())

    def fetch_runs(self, fetch_id: int) -> None:
        """The supernode asks the origin."""
        if fetch_id in self.fetches:
            self.origin_state = "fetching"

    def fetch_ended(self, fetch_id: int, *, ok: bool) -> bool:
        """A fetch is over. False if it was none of this swarm, or given up before."""
        if fetch_id not in self.fetches:
            return False
        self.fetches.discard(fetch_id)
        self.fetches_ending.discard(fetch_id)
        if ok and not self.fetches:
            self.origin_state = ""
        return True

    def elect(self, node: int | None, pieces: int = 0) -> None:
        """This member tries the origin for all, for these pieces (mask); None: everybody may."""
        self.elected, self.elected_pieces = node, pieces
        self.origin_state = "open" if node is None else "unreachable"

    def leave_origin(self, until_s: float) -> None:
        """The origin wants no questions about the blob until then: everybody waits."""
        self.origin_free_s = until_s
        self.origin_state = "queued"

    def attempt_ended(self, node: int) -> bool:
        """An attempt at the origin is over. Whether it was the elected member's."""
        if self.elected != node:
            return False
        self.elected = None
        return True

    def check_due(self) -> bool:
        """Whether the digest is to be compared now: every piece is here, and that was not begun or done before."""
        if not self.seed_complete or not self.layout.count or self.seed_checked or self.checking:
            return False
        self.checking = True
        return True

    def check_ended(self) -> None:
        """The digest was compared, or could not be."""
        self.checking = False

    def digest_matched(self) -> bool:
        """The supernode's copy is the blob. Whether that is news for the members."""
        self.seed_checked = self.seed_complete  # not, if pieces of it rotted meanwhile
        self.origin_state = ""
        before, self.vouched = self.vouched, True
        return not before
