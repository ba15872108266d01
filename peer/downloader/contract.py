"""Every event the downloader takes and every command it gives. Plain data; see machine.py for what they do.

Blobs are named by digest, everything that was started by an id of the machine's own. What the supernode says comes
in as the message itself (Received) and goes out as one (Send), except piece hashes: the shell checks them and then
tells HashesLearned. Piece sets are integer masks (bit i is piece i).

Every command that starts something ends in exactly one outcome:
    OpenInStore -> StoreOpened | StoreRefused          StartFetch, StoreContent -> FetchEnded
    FetchUpstream -> UpstreamEnded (UpstreamPiece before it)   CheckPublic -> PublicChecked
    CheckDigest -> DigestChecked                       AskHoldings -> HoldingsKnown
    BlobWanted (an event) -> AnswerReader | RefuseReader, then ReaderClosed from the shell in any case
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proto.ids import Digest, PeerName
    from proto.oci.ranges import ByteRange
    from proto.wire.messages import Message, Source


@dataclass(frozen=True, slots=True)
class Holder:
    """A peer that may hold pieces: its name and upload address, HOST:PORT. Good beyond the session."""

    peer: PeerName
    address: str


# --- events: the supernode ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SupernodeConnected:
    """A session with the supernode is open; its numbers start afresh."""


@dataclass(frozen=True, slots=True)
class SupernodeAnswered:
    """There is no session, but the supernode answers: one follows within moments, or another attempt."""


@dataclass(frozen=True, slots=True)
class SupernodeLost:
    """The session is over: the connection ended, or (`silent`) three pings were missed."""

    silent: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the supernode, except PieceHashes."""

    message: Message


@dataclass(frozen=True, slots=True)
class HashesLearned:
    """The signed hashes of these pieces (mask) were checked and are with the store, or will be when it opens."""

    digest: Digest
    pieces: int


@dataclass(frozen=True, slots=True)
class HashesConflict:
    """The supernode signed other hashes than those of pieces held here: one of the two came from a bad origin."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class SharingSwitched:
    """The operator turned peer-to-peer on or off."""

    on: bool


SupernodeEvent = (
    SupernodeConnected | SupernodeAnswered | SupernodeLost | Received | HashesLearned | HashesConflict | SharingSwitched
)


# --- events: readers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlobWanted:
    """A client asks for the blob as it stands at `source`. `reader` is the shell's id for it.

    `allowed_bytes`: the origin allows this very client to read it, and has so many bytes; None: nothing is known. Not
    `proven`: by a manifest's word alone, so that it may have what the origin gives to itself, and nothing else. It
    reads these `ranges`, which come first, or all of it; not `whole`: nothing comes for it but these. `background`: it
    is no client, the blob is to be here before one comes.
    """

    reader: int
    digest: Digest
    source: Source
    allowed_bytes: int | None = None
    proven: bool = False
    ranges: tuple[ByteRange, ...] = ()
    whole: bool = True
    background: bool = False


@dataclass(frozen=True, slots=True)
class ReaderAt:
    """The client waits for this piece."""

    reader: int
    piece: int


@dataclass(frozen=True, slots=True)
class ReaderClosed:
    """The client is served or gone."""

    reader: int


@dataclass(frozen=True, slots=True)
class BackgroundDropped:
    """What was to be here before a client comes is not wanted any more, unless a client has come."""

    digest: Digest


ReaderEvent = BlobWanted | ReaderAt | ReaderClosed | BackgroundDropped


# --- events: the store ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlobFound:
    """In the store when this node started; `sources` are where it was public, `private_at` as in BytesPrivate.

    An upstream without a name stands for one that nobody knows any more.
    """

    digest: Digest
    size_bytes: int
    piece_size_bytes: int
    held: int
    complete: bool
    sources: tuple[Source, ...] = ()
    private_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreOpened:
    """Pinned. `hashed`: pieces whose hash the supernode signed."""

    digest: Digest
    held: int
    hashed: int
    complete: bool


@dataclass(frozen=True, slots=True)
class StoreRefused:
    """The store has no room or is in trouble; `message` is the operator's line."""

    digest: Digest
    message: str


@dataclass(frozen=True, slots=True)
class BlobEvicted:
    """The blob left the store."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class PiecesRotten:
    """These held pieces (mask) were found rotten on the disk, and the store dropped them: they are missing again."""

    digest: Digest
    pieces: int


@dataclass(frozen=True, slots=True)
class DigestChecked:
    """The blob's own digest was compared. `trouble`: it could not be (disk), and `matches` means nothing."""

    check: int
    matches: bool
    trouble: str = ""


StoreEvent = BlobFound | StoreOpened | StoreRefused | BlobEvicted | PiecesRotten | DigestChecked


# --- events: transfers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """A transfer is over; `reason` is empty when the piece is held, else a FetchReason value.

    It waited so long to be asked for, and that so long for its first byte; `elapsed_s` counts from there.
    """

    fetch: int
    reason: str
    elapsed_s: float
    message: str = ""
    waited_s: float = 0.0
    answered_s: float = 0.0
    # Pieces (mask) whose signed hashes came with it, and are in the store.
    learned: int = 0


@dataclass(frozen=True, slots=True)
class PieceArrived:
    """A transport that goes without leases brought a piece into the open blob."""

    digest: Digest
    piece: int


@dataclass(frozen=True, slots=True)
class PayloadCame:
    """Such a transport received bytes of the blob since its last report: progress, but no whole piece yet."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """Such a transport can bring no more of the blob: the disk, or wrong content; `message` is the operator's line."""

    digest: Digest
    message: str


@dataclass(frozen=True, slots=True)
class UpstreamPiece:
    """This node's own fetch from the origin brought a piece into the store, of this BLAKE3 hash."""

    fetch: int
    piece: int
    piece_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class UpstreamEnded:
    """Over: `reason` is empty when all asked for is held, else UpstreamKind's value, `local` or `cancelled`.

    `retry_after_s`: the origin wants no questions about the blob for so long.
    """

    fetch: int
    reason: str
    message: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PublicChecked:
    """The origin answered an anonymous HEAD. `reason`: empty when public, else as in BlobRefused."""

    check: int
    size_bytes: int
    reason: str = ""
    message: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HoldingsKnown:
    """The pieces (mask) that a holder reports; None if it could not be asked, or is too `busy` to say.

    Comes after HashesLearned.
    """

    query: int
    held: int | None
    busy: bool = False


TransferEvent = (
    FetchEnded
    | PieceArrived
    | PayloadCame
    | TransportFailed
    | UpstreamPiece
    | UpstreamEnded
    | PublicChecked
    | HoldingsKnown
)


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The time next_wakeup() named has come."""


Event = SupernodeEvent | ReaderEvent | StoreEvent | TransferEvent | Wakeup


# --- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """To the supernode."""

    message: Message


@dataclass(frozen=True, slots=True)
class OpenInStore:
    """Pin the blob, beginning it where it is not there."""

    digest: Digest
    size_bytes: int
    piece_size_bytes: int


@dataclass(frozen=True, slots=True)
class CloseInStore:
    """Unpin it."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class VoidInStore:
    """Drop every piece and hash of a pinned blob."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class CheckDigest:
    """All pieces are held: compare the blob's digest."""

    check: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class StartFetch:
    """Fetch a piece from a peer into the store.

    `ahead`: the holder is to send once another of its transfers has ended. `behind`: it is to be asked when this fetch
    of our own is nearly over; 0 for at once. `unproven`: take it also without a hash that the supernode signed.
    `claim`: the same, held to this hash by the word of the node that fetched it from the origin.
    """

    fetch: int
    digest: Digest
    piece: int
    holder: Holder
    deadline_s: float
    ahead: bool = False
    behind: int = 0
    unproven: bool = False
    claim: bytes = b""


@dataclass(frozen=True, slots=True)
class StoreContent:
    """A fetch whose bytes are in hand: put the one piece of a tiny blob, which came in a message, into the store."""

    fetch: int
    digest: Digest
    content: bytes


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """End the transfer now; its outcome still comes."""

    fetch: int


@dataclass(frozen=True, slots=True)
class FetchUpstream:
    """Ask the origin for these pieces (mask), lowest first from piece `first` on, then those below it.

    `reader`: with the credential of this client; 0: with none. `why` this node may ask, in a word for metrics: elected,
    open (the supernode has all ask, or nothing came although it is there), no_supernode, not_shared.
    """

    fetch: int
    digest: Digest
    source: Source
    pieces: int
    first: int
    reader: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class CancelUpstream:
    """Stop after the piece that is being received; its outcome still comes."""

    fetch: int


@dataclass(frozen=True, slots=True)
class LeaveOrigin:
    """The origin wants no questions about this blob for so long, as another node was told: ask it nothing there."""

    digest: Digest
    sources: tuple[Source, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckPublic:
    """Ask the origin without a credential whether it gives this blob to anyone, and its size."""

    check: int
    digest: Digest
    source: Source


@dataclass(frozen=True, slots=True)
class AskHoldings:
    """Ask a peer what it holds of the blob, and for signed hashes where `hashes`."""

    query: int
    digest: Digest
    holder: Holder
    hashes: bool


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """The client may read: the blob is public at its source and open in the store."""

    reader: int


@dataclass(frozen=True, slots=True)
class RefuseReader:
    """Not for peer-to-peer here and now; `reason` as in peer.node.blobs.NotShared."""

    reader: int
    reason: str
    message: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PieceHeld:
    """Readers may get on."""

    digest: Digest
    piece: int


@dataclass(frozen=True, slots=True)
class Withhold:
    """No client is given anything of these pieces (mask), and of no others, while the digest has not passed.

    Comes before any of them is held.
    """

    digest: Digest
    pieces: int


@dataclass(frozen=True, slots=True)
class BlobComplete:
    """The digest passed: any byte may be sent."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class FailReaders:
    """No more comes for the blob's present readers, or for `reader` alone. `mismatch`: the content itself is wrong."""

    digest: Digest
    mismatch: bool
    message: str
    reader: int = 0


@dataclass(frozen=True, slots=True)
class SourcePublic:
    """Worth remembering over a restart: the blob is public there."""

    digest: Digest
    source: Source


@dataclass(frozen=True, slots=True)
class BytesPrivate:
    """The blob's bytes come, or came, from these upstreams to clients with credentials: no other's word unlocks them.

    Comes before the first of them. Without upstreams: they are public, or there are none.
    """

    digest: Digest
    upstreams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForgetBlob:
    """Nothing of the blob is held, wanted or read any more."""

    digest: Digest


StoreCommand = OpenInStore | CloseInStore | VoidInStore | CheckDigest | StoreContent
TransferCommand = StartFetch | CancelFetch | FetchUpstream | CancelUpstream | LeaveOrigin | CheckPublic | AskHoldings
ReaderCommand = AnswerReader | RefuseReader | PieceHeld | Withhold | BlobComplete | FailReaders
Command = Send | StoreCommand | TransferCommand | ReaderCommand | SourcePublic | BytesPrivate | ForgetBlob
