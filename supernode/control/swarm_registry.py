"""The supernode's account of each open swarm: cut, sources, hashes, members, and how its origin does. Plain data.

All transitions are methods here. What follows from them (events, messages, saved state) is for the callers: membership,
admission, message_handler, command_handler and verification. Lives on the event loop.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.ids import PeerId, PeerName, peer_name
from proto.owners import owners
from proto.pieces import mask_of
from proto.wire.messages import HOLDERS_MAX, SEED_NODE, Source
from supernode.control.piece_hashes import BlobHashes
from supernode.control.traffic import Rush, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peer.transport.base import PieceSource
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Stored
    from supernode.control.peer_session import PeerLease
    from supernode.control.piece_hashes import Signer
    from supernode.state.base import SavedSwarm

# A tiny blob travels in control messages while that takes at most this much of the uplink's time.
INLINE_UPLINK_S: Final = 0.05
INLINE_BYTES_MAX: Final = 64 * 1024
# Places to ask for one blob: each may have to fail before the next is asked.
SOURCES_MAX: Final = 16
# Blobs that were dropped lately.
DROPPED_CUTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class SeedBlob:
    """What the store has of a blob. `hashes` are runs (first, concatenated hashes) of exactly the held pieces."""

    layout: PieceLayout
    held: int
    complete: bool
    hashes: tuple[tuple[int, bytes], ...]
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A member that says it holds a piece: a hint where to fetch it, and no more until the digest has passed here.

    `claim`: the hash that the piece is held to.
    """

    peer: PeerId
    source: PieceSource
    claim: bytes = b""


@dataclass(slots=True)
class Claim:
    """A piece's hash by the word of the member that was elected to fetch it. Who has the piece by it (`holders`) is a
    source of it. It is never signed, nor saved, and ends once the piece is known here.
    """

    author: PeerId
    piece_hash: bytes
    holders: set[PeerName]


@dataclass(slots=True)
class SwarmMember:
    """One session's part in a swarm: what it said and what it was sent. Not the scheduler's, nor a downloader's."""

    name: PeerName
    wanted: bool
    # It has the blob by its clients' permissions alone.
    private: bool = False
    # Registry hosts that its clients named for the blob.
    upstreams: set[str] = field(default_factory=set)
    # What the scheduler knows that it holds.
    held: int = 0
    # Pieces that it says it holds but whose hash is not known here: nobody could check them.
    unproven: int = 0
    # Those that it fetches from an origin by itself and is waited for with, until when; and what the scheduler was told
    # of both.
    fetching: int = 0
    fetching_until_s: float = 0.0
    offered: int = 0
    offered_soon: int = 0
    # Pieces whose hash it knows: we sent it, or it came with the piece; and those whose hash it can pass on with them.
    hashes_sent: int = 0
    passes_on: int = 0
    holders_sent: tuple[int, ...] = ()
    ticket_renew_s: float = 0.0
    # Its last lease failed, and nothing came since: it may reach nobody.
    failing: bool = False
    # What it held when it was last sent how the origin does, and what it was sent.
    status_sent: tuple[int, str, bool] | None = None

    def fetches(self, now_s: float) -> int:
        """The pieces (mask) that it fetches by itself and is waited for with."""
        return self.fetching if now_s < self.fetching_until_s else 0

    def hash_came_with(self, piece: int) -> None:
        """It got the piece together with its hash."""
        if not self.hashes_sent >> piece & 1:
            self.hashes_sent |= 1 << piece
            self.passes_on |= 1 << piece


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
    # What goes from member to member by the word of one, by piece; the pieces (mask); whether there ever were any.
    claims: dict[int, Claim] = field(default_factory=dict)
    claimed: int = 0
    went_by_word: bool = False
    # What members offered of it was not the blob: nothing that they claim counts, but pieces that one gave as they are.
    # By piece who gave it to the seed, and its hash.
    doubted: bool = False
    given: dict[int, tuple[PeerId, bytes]] = field(default_factory=dict)
    # Pieces (mask) that the seed brings from members, since together they are the blob.
    brought: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    # None until somebody waits for it.
    rush: Rush | None = None
    # Members that may be named as holders, by number, sorted.
    _holders: list[int] = field(default_factory=list)
    # The owners among them, once somebody asked.
    _owner_nodes: list[int] | None = None

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

    def holders_for(self, node: int) -> tuple[int, ...]:
        """Up to 20 other members: the blob's owners (proto.owners), then those that follow the asker in a ring."""
        start = bisect_left(self._holders, node)
        ring = self._holders[start : start + HOLDERS_MAX + 1]
        if len(ring) <= HOLDERS_MAX:
            ring += self._holders[: min(start, HOLDERS_MAX + 1 - len(ring))]
        named = dict.fromkeys([*self._owners(), *ring])
        named.pop(node, None)
        return tuple(named)[:HOLDERS_MAX]

    def is_owner(self, node: int) -> bool:
        """Whether it is one of those that ask the origin for all while no supernode says who does."""
        return node in self._owners()

    def _owners(self) -> list[int]:
        if self._owner_nodes is None:
            self._owner_nodes = self._owners_among(self._holders)
        return self._owner_nodes

    def _owners_among(self, candidates: Iterable[int]) -> list[int]:
        nodes = {self.members[node].name: node for node in candidates}
        return [nodes[name] for name in owners(self.digest, nodes)]

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
            self._name_again(node)
        self._want(member, wanted)
        counted = self.hashes.known | mask_of(piece for piece, claim in self.claims.items() if name in claim.holders)
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
        self._holders.clear()
        self._owner_nodes = None
        self.fetches.clear()
        self.given.clear()
        self.claims.clear()
        self.claimed = 0

    def mistrust(self, node: int) -> None:
        """Name this node to nobody any more."""
        position = bisect_left(self._holders, node)
        if position < len(self._holders) and self._holders[position] == node:
            del self._holders[position]
            self._owner_nodes = None

    def trust(self, node: int) -> None:
        """Inverse of mistrust(): name it again, if it is a member."""
        position = bisect_left(self._holders, node)
        if node in self.members and self._holders[position : position + 1] != [node]:
            self._name_again(node)

    def _name_again(self, node: int) -> None:
        insort(self._holders, node)
        if self._owner_nodes is not None:
            # Others than these do not come into it.
            self._owner_nodes = self._owners_among([*self._owner_nodes, node])

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
            self.rush = Rush(now, self.traffic.came, cold=not any(member.held for member in self.members.values()))
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
        claim = self.claims.get(piece)
        if not (self.hashes.known & bit or (claim is not None and member.name in claim.holders)):
            member.unproven |= bit
            return False
        member.held |= bit
        return True

    def claim(self, member: SwarmMember, author: PeerId, piece: int, piece_hash: bytes) -> None:
        """The member has the piece from the origin. The first word counts as long as somebody has the piece by it."""
        bit = 1 << piece
        claim = self.claims.get(piece)
        if claim is None or not any(other.held & bit for other in self.members.values()):
            claim = self.claims[piece] = Claim(author, piece_hash, set())
        self.claimed |= bit
        self.went_by_word = True
        if claim.piece_hash == piece_hash:
            claim.holders.add(member.name)

    def taken(self, member: SwarmMember, piece: int, piece_hash: bytes) -> None:
        """A lease by this word brought the piece to the member."""
        claim = self.claims.get(piece)
        if claim is not None and claim.piece_hash == piece_hash:
            claim.holders.add(member.name)

    def end_claim(self, piece: int) -> Claim | None:
        """The piece is known here."""
        self.claimed &= ~(1 << piece)
        return self.claims.pop(piece, None)

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


class SwarmRegistry:
    """Open swarms by digest and by number. Numbers are never reused within an epoch."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._by_digest: dict[Digest, OpenSwarm] = {}
        self._by_number: dict[int, OpenSwarm] = {}
        self._next_number = 1
        # Of all there ever were.
        self.traffic = Traffic()
        self._opened_by: Counter[str] = Counter()
        # Of swarms that were dropped: what nodes are still sent of them is cut so, and so are they begun anew.
        self.dropped_cuts: BoundedDict[Digest, PieceLayout] = BoundedDict(DROPPED_CUTS_MAX)

    def open(self, digest: Digest, layout: PieceLayout, opener: str = "") -> OpenSwarm:
        """A new swarm, opened for nodes at this address; the digest must not be open."""
        assert digest not in self._by_digest
        swarm = OpenSwarm(self._next_number, digest, layout, BlobHashes(self._signer, digest, layout), opener)
        self._opened_by[opener] += 1
        self._next_number += 1
        self._by_digest[digest] = swarm
        self._by_number[swarm.number] = swarm
        return swarm

    def close(self, swarm: OpenSwarm) -> None:
        """Forget it; late messages that name its number are ignored."""
        del self._by_digest[swarm.digest]
        del self._by_number[swarm.number]
        self._opened_by[swarm.opener] -= 1
        if not self._opened_by[swarm.opener]:
            del self._opened_by[swarm.opener]

    def count_stored(
        self, swarm: OpenSwarm, member: SwarmMember, stored: Stored, lease: PeerLease | None, *, leased: bool = True
    ) -> None:
        """A member reports a piece. Of a lease that has ended here meanwhile a node sent it, most likely; and so where
        pieces are not `leased` in this cluster at all.
        """
        if (member.held | member.unproven) >> stored.piece & 1:
            return
        size_bytes = swarm.layout.length(stored.piece)
        for traffic in (swarm.traffic, self.traffic):
            if leased and not stored.lease:
                traffic.own += size_bytes
            elif lease is not None and lease.source == SEED_NODE:
                traffic.supernode += size_bytes
            else:
                traffic.nodes += size_bytes

    def count_fetched(self, swarm: OpenSwarm, piece: int) -> None:
        """The seed stored a piece that no lease brought: from the origin, if not from members."""
        if (swarm.seed_held | swarm.brought) >> piece & 1:
            return
        size_bytes = swarm.layout.length(piece)
        swarm.traffic.origin += size_bytes
        self.traffic.origin += size_bytes

    def opened_by(self, opener: str) -> int:
        """How many of the open ones were opened for nodes at this address."""
        return self._opened_by[opener]

    def of(self, digest: Digest) -> OpenSwarm | None:
        """The open swarm of a blob."""
        return self._by_digest.get(digest)

    def numbered(self, number: int) -> OpenSwarm | None:
        """The open swarm with this number."""
        return self._by_number.get(number)

    def part(self, number: int, node: int) -> tuple[OpenSwarm, SwarmMember] | None:
        """A swarm and this node's part in it; None for a swarm that was closed or left meanwhile."""
        swarm = self._by_number.get(number)
        member = swarm.members.get(node) if swarm is not None else None
        return (swarm, member) if swarm is not None and member is not None else None

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[OpenSwarm]:
        return iter(self._by_digest.values())
