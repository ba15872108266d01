"""What the downloader knows of one blob. A piece is MISSING, LEASED (some transfer is under way) or HELD; nothing else.

Plain state and questions about it; the rules that change it are in readers, leases, standalone and origin.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from peer.downloader.holders import KnownHolders
from proto.ids import Digest  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from proto.oci.ranges import ByteRange, bounds_of
from proto.pieces import PieceLayout, first_missing, mask_of
from proto.wire.messages import LISTED, NO_READER, PROVEN, Source

if TYPE_CHECKING:
    from peer.downloader.contract import Holder
    from proto.wire.messages import Grant, InlineBlob


class PieceState(Enum):
    """Where a piece stands on this node."""

    MISSING = "missing"
    LEASED = "leased"
    HELD = "held"


class StoreState(Enum):
    """Whether the blob is pinned in the store."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"


@dataclass(slots=True)
class Reader:
    """A client that asked for the blob.

    `admitted`: its source is public, or gives it the blob; `answered`: it may read; `failed`: it was told that no more
    comes. `allowed_bytes`, `proven` and `whole` and `ranges` as in BlobWanted.
    """

    reader: int
    source: Source
    deadline: float
    allowed_bytes: int | None = None
    proven: bool = False
    admitted: bool = False
    answered: bool = False
    failed: bool = False
    piece: int = NO_READER
    # When it began to wait for that.
    waits_since: float = 0.0
    whole: bool = True
    ranges: tuple[ByteRange, ...] = ()
    background: bool = False
    # The pieces (mask) that its ranges are in, once the cut is known.
    pieces: int | None = None

    def asked(self, layout: PieceLayout | None) -> int:
        """The pieces that its ranges are in; all of them where the whole is its answer."""
        if self.pieces is None and layout is not None:
            self.pieces = 0
            size_bytes = layout.size_bytes
            bounds = bounds_of(self.ranges, size_bytes) if self.ranges else ()
            for start, end in bounds if bounds is not None else ((0, size_bytes),):
                self.pieces |= layout.pieces_in(start, end)
        return self.pieces or 0

    @property
    def allowed(self) -> int:
        """As announcements have it."""
        return 0 if self.allowed_bytes is None else PROVEN if self.proven else LISTED


@dataclass(frozen=True, slots=True)
class Asked:
    """An announcement that waits for its answer: the place that it named, what it said of a permission there
    (Announce.allowed), and when it was sent. Not `asks`: nobody may read by its answer.
    """

    source: Source
    allowed: int
    at: float
    asks: bool


@dataclass(slots=True)
class Fetch:
    """A transfer of one piece. `lease` is 0 when no lease (of this session, not cancelled) stands behind it.

    `claimed`: the piece is held to a hash that nobody vouches for. `voided`: the blob was dropped since, and what it
    brings counts for nothing.
    """

    fetch: int
    piece: int
    lease: int
    holder: Holder | None
    standalone: bool = False
    claimed: bool = False
    cancelled: bool = False
    voided: bool = False


@dataclass(slots=True)
class Upstream:
    """This node's own fetch from the origin; `pieces` (mask) shrinks as they come. `reader`: whose credential, or 0."""

    fetch: int
    pieces: int
    elected: bool
    reader: int = 0
    cancelled: bool = False
    voided: bool = False


@dataclass(slots=True, eq=False)
class Blob:
    """One blob, equal to itself alone. What is only good for one session is reset by end_session()."""

    digest: Digest
    # When, of which piece, text, and the text's values: put into words only when somebody asks why.
    history: deque[tuple[float, int | None, str, tuple[object, ...]]]
    # Set by cut() alone; `full` is the mask of all pieces, 0 while the layout is unknown.
    layout: PieceLayout | None = None
    full: int = 0
    held: int = 0
    hashed: int = 0
    complete: bool = False
    wanted: bool = False
    # As long as it is wanted: all of it is, not only what is read by ranges.
    whole: bool = False
    # As long as it is wanted: it is to be here before a client comes, or some client wanted it, or both.
    preheated: bool = False
    pulled: bool = False
    # It was complete, and pieces of it rotted on the disk: they are fetched again although nobody may be reading.
    repair: bool = False
    store: StoreState = StoreState.CLOSED
    # It was dropped while the store opened it: what that has of it counts for nothing.
    void_once_open: bool = False
    check: int = 0
    # The blob was dropped since the check began: its outcome does not count.
    check_voided: bool = False
    readers: dict[int, Reader] = field(default_factory=dict)
    # Where it is public.
    sources: list[Source] = field(default_factory=list)
    # Upstreams that gave what is here to clients with credentials, and to nobody else. Empty for public bytes.
    private_at: dict[str, None] = field(default_factory=dict)
    # Where a private blob is shared: the last place at which a client of this node was allowed to read it.
    private_source: Source | None = None
    # A private blob that this node shares with nobody: it asks the origin as its own clients may.
    alone: bool = False
    # Until its digest has passed here: the upstreams whose readers may have what is here and what comes.
    upstreams: dict[str, None] = field(default_factory=dict)
    fetches: dict[int, Fetch] = field(default_factory=dict)
    upstream: Upstream | None = None
    holders: KnownHolders = field(init=False)
    progress_at: float = 0.0
    # Without a supernode: the pieces (mask) that this node or a holder it knows has, and when they last became more.
    found: int = 0
    found_at: float = 0.0
    # Some pieces came from peers without a signed hash.
    unproven: bool = False
    # Of those, and of what is on its way so, the pieces (mask) that clients are not given while a supernode is there.
    withheld: int = 0
    # Nothing came for long although a supernode is there, and no peer has sent anything since.
    starved: bool = False
    # Until when the origin wants no questions about it.
    origin_free_at: float = 0.0
    # When the supernode last reported that the swarm moves.
    moved_at: float = 0.0
    rest_until: float = 0.0
    # --- of this session alone ---
    swarm: int = 0
    ticketed: bool = False
    # The supernode shares it as a whole alone: ranges are the origin's.
    shared_whole: bool = False
    announced: bool = False
    announced_held: int = 0
    announced_wanted: bool = False
    # The announcement said that no more is wanted than what is read by ranges; and what the supernode knows of that.
    announced_ranges: bool = False
    # The announcement said that no client waits for it.
    announced_background: bool = False
    asked_sent: int = 0
    unanswered: deque[Asked] = field(default_factory=deque)
    early: list[Grant | InlineBlob] = field(default_factory=list)
    reader_sent: int = NO_READER
    origin_state: str = ""
    elected: bool = False
    # What it is elected for.
    elected_pieces: int = 0

    def __post_init__(self) -> None:
        self.holders = KnownHolders(self.digest)

    def serves(self, upstream: str) -> bool:
        """Whether a reader that named this upstream may have what is here and comes: no other's unproven bytes."""
        return self.complete or self.repair or upstream in self.upstreams

    @property
    def place(self) -> Source | None:
        """Where to ask for it: of the places that give it to anyone the latest, at an upstream that it serves."""
        served = (source for source in self.sources if source.upstream in self.upstreams)
        return next(served, next(iter(self.sources), None))

    def end_session(self) -> None:
        """The session is over: its numbers, leases and questions with it. The ticket outlives it."""
        self.swarm = 0
        self.shared_whole = False
        self.announced = self.announced_wanted = self.announced_ranges = self.announced_background = False
        self.announced_held = self.asked_sent = 0
        self.unanswered.clear()
        self.early.clear()
        self.reader_sent = NO_READER
        self.origin_state = ""
        self.elected = self.starved = False
        for fetch in self.fetches.values():
            fetch.lease = 0

    def cut(self, layout: PieceLayout | None) -> None:
        """Set the cut, or clear it."""
        self.layout = layout
        self.full = layout.full_mask if layout is not None else 0
        for reader in self.readers.values():
            reader.pieces = None

    def answered(self) -> Asked | None:
        """The oldest announcement got its answer."""
        return self.unanswered.popleft() if self.unanswered else None

    def asked_for(self, source: Source) -> int:
        """The most that is said of a permission there in questions that wait for an answer; -1: there is none."""
        return max((asked.allowed for asked in self.unanswered if asked.asks and asked.source == source), default=-1)

    @property
    def all_held(self) -> bool:
        """Every piece is held (true of an empty blob, not of one whose size is unknown)."""
        return self.layout is not None and self.held == self.full

    @property
    def ranges_alone(self) -> bool:
        """Nobody wants more of it than what is read by ranges."""
        whole = self.whole or self.repair or self.full == 1
        return not whole and not any(reader.whole and not reader.failed for reader in self.readers.values())

    @property
    def background_alone(self) -> bool:
        """It is to be here before a client comes: none wants it now."""
        readers = [reader for reader in self.readers.values() if not reader.failed]
        preheated = self.preheated or any(reader.background for reader in readers)
        pulled = self.pulled or self.repair or any(not reader.background for reader in readers)
        return preheated and not pulled

    @property
    def asked(self) -> int:
        """Missing pieces that clients wait for who read ranges."""
        asked = 0
        for reader in () if self.shared_whole else self.readers.values():
            if reader.ranges and reader.admitted and not reader.failed:
                asked |= reader.asked(self.layout)
        return asked & ~self.held

    @property
    def missing(self) -> int:
        """The pieces that are wanted here and not held."""
        return self.asked if self.ranges_alone else self.full & ~self.held

    @property
    def private(self) -> bool:
        """Its bytes are not given to anyone."""
        return bool(self.private_at)

    @property
    def lender(self) -> Reader | None:
        """The client with whose credential the origin is asked for a private blob: one that waits for it."""
        for reader in self.readers.values():
            if reader.admitted and not reader.failed and reader.source.upstream in self.private_at:
                return reader
        return None

    @property
    def leased(self) -> int:
        """Pieces that some transfer is bringing."""
        return (self.leased_by_peers | self.fetched_here) & ~self.held

    @property
    def leased_by_peers(self) -> int:
        """The same from other nodes."""
        return mask_of(fetch.piece for fetch in self.fetches.values() if not fetch.cancelled) & ~self.held

    @property
    def fetched_here(self) -> int:
        """Pieces that this node's own fetch from the origin is bringing."""
        return self.upstream.pieces if self.upstream is not None and not self.upstream.cancelled else 0

    def piece_state(self, piece: int) -> PieceState:
        """Exactly one state at a time."""
        if self.held >> piece & 1:
            return PieceState.HELD
        return PieceState.LEASED if self.leased >> piece & 1 else PieceState.MISSING

    @property
    def first_read(self) -> int:
        """The earliest missing piece a client waits for, or NO_READER."""
        first = NO_READER
        for reader in self.readers.values():
            if reader.answered and not reader.failed and reader.piece != NO_READER:
                piece = first_missing(self.held, reader.piece)
                if self.full >> piece and (piece < first or first == NO_READER):
                    first = piece
        return first

    @property
    def being_read(self) -> bool:
        """Some client was answered, was not failed and is not gone."""
        return any(reader.answered and not reader.failed for reader in self.readers.values())

    @property
    def needed_here(self) -> bool:
        """Clients read it, or what rotted of it here is to come back."""
        return self.being_read or self.repair

    @property
    def idle(self) -> bool:
        """Nothing is under way, so that the store's pin may go."""
        return not (self.readers or self.fetches or self.upstream or self.check or self.early)
