"""Every message of an open session between a peer and its supernode. Plain data, no behaviour.

How a session is opened is in proto.wire.handshake. After that both sides send frames at any time; a frame is a batch of
messages (proto.wire.codec). Digests are named once, in Announce and SwarmOpened; later messages use the supernode's
small numbers: `swarm` for a blob, `node` for a peer, `lease`. Numbers are good for one session only.

On the wire a message is an array: its tag, then its fields in this order. New fields are appended with a
default, so that either side may be older; a receiver ignores what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from proto.wire import handshake

# The supernode's own number among the nodes: the seed, peer zero.
SEED_NODE = 0
# `piece` of ReaderMoved when no client reads any more.
NO_READER = -1
# By what a source allows a client of a node to read a blob (Announce.allowed).
LISTED = 1
PROVEN = 2


@dataclass(frozen=True, slots=True)
class Source:
    """From where a blob may be asked: a registry host (normalised, see proto.oci.routes) and a repository in it.

    `manifest`: it is a manifest there, and asked for as one.
    """

    upstream: str
    repository: str
    manifest: bool = False


# --- peer -> supernode ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """What this peer holds of a blob and whether it wants the rest. Sent again after every reconnect.

    `sources`: where its clients asked for it. `size_bytes` and `piece_size_bytes` are 0 while unknown, and
    `held` (a mask as bytes) is then empty. `fetching` (the same) are pieces that this peer fetches from an origin by
    itself now; an OriginStatus says whether it goes on. `hashes` is of an earlier release, and means nothing.
    `allowed`: the source allows a client here to read the blob, of `size_bytes`, though it may be private: LISTED (by a
    manifest that it gave to this client) or PROVEN (by its answer for the blob itself); 0: nothing is known.
    `asks`: whether the source gives it to anyone is to be known, of late; else the peer only tells what it holds.
    `ranges`: of what it wants it reads ranges, and wants no more than the pieces that PiecesWanted names.
    `background`: no client of this peer waits for it (Preheat). `trace`: the span below which what is done for it is
    told (proto.runtime.traces.Span.context), if that is collected.
    """

    digest: str
    sources: tuple[Source, ...]
    wanted: bool
    size_bytes: int
    piece_size_bytes: int
    held: bytes
    hashes: bytes = b""
    fetching: bytes = b""
    allowed: int = 0
    asks: bool = True
    ranges: bool = False
    background: bool = False
    trace: bytes = b""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """This peer neither holds nor wants any piece of the blob now (evicted, given up, or voided)."""

    digest: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece passed its hash and is held. `lease` is 0 when no lease brought it (upstream, peers alone).

    It took `elapsed_ms` and `beyond_us` from its first byte on. Before that its request waited to be sent, and then for
    the answer: what a lease costs beside its transfer.
    `claim`: its BLAKE3 hash, of an elected peer that has the piece from the origin. Others get it by this word.
    """

    lease: int
    swarm: int
    piece: int
    elapsed_ms: int
    beyond_us: int = 0
    waited_us: int = 0
    answered_us: int = 0
    claim: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """A lease ended without its piece. `reason` is a FetchReason value."""

    lease: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReaderMoved:
    """The earliest piece a local client still waits for, or NO_READER. Not told of a blob of one piece."""

    swarm: int
    piece: int


@dataclass(frozen=True, slots=True)
class PiecesWanted:
    """The missing pieces (a mask as bytes) that clients wait for who read ranges: they come before all others.

    It takes the place of the one before. Whoever announced `ranges` wants no others.
    """

    swarm: int
    pieces: bytes


@dataclass(frozen=True, slots=True)
class BlobChecked:
    """This peer has every piece and compared the blob's digest itself."""

    swarm: int
    matches: bool


@dataclass(frozen=True, slots=True)
class OriginTried:
    """An elected peer's attempt at the origin ended; `reason` is empty on success, else UpstreamKind's value.

    `retry_after_s`: the origin wants no questions about the blob for so long; 0 if it said nothing of the kind.
    """

    swarm: int
    reason: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PreheatEnded:
    """All of a blob is here that the supernode asked for (Preheat), or it does not come: `reason` says why not.

    As in BlobRefused, or given_up (nothing came any more, or the store is in trouble); empty where all is here.
    """

    digest: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """How full this peer's store is, for who looks on: with a session, and while it changes every ten seconds.

    Since the peer's start: pieces that rotted, and blobs and pieces that found no room.
    """

    used_bytes: int
    limit_bytes: int
    rotten: int = 0
    refused: int = 0


# --- supernode -> peer ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeKnown:
    """A node's number, name (proto.ids) and piece upload address (HOST:PORT), before the first message naming it.

    `delivery_address` (HOST:PORT) is where it takes part in the cluster's transport, empty for none; see Hello.
    """

    node: int
    peer: bytes
    address: str
    delivery_address: str = ""


@dataclass(frozen=True, slots=True)
class SwarmOpened:
    """Answer to Announce: the blob is public at the announced sources, this is its cut, and a ticket for it.

    `private`: it is not. The node gives it to those alone whom that source allows, and takes pieces by TLS alone.
    `age_s`: how long ago the source was asked; infinite for what counts this once alone.
    `whole`: it is of use as a whole alone, and who reads ranges asks the origin.
    `public_at`: of a private one, the other place where its bytes came from, which gives them to anyone; `age_s` is of
    that one's word then.
    """

    swarm: int
    digest: str
    size_bytes: int
    piece_size_bytes: int
    ticket: bytes
    private: bool = False
    age_s: float = 0.0
    whole: bool = False
    public_at: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class BlobRefused:
    """Answer to Announce: no peer-to-peer for this blob.

    `reason`: private (the origin wants a credential), unknown (404 there), unavailable, slow (it has not answered yet:
    ask again), rate_limited (not before `retry_after_s`, if that is not 0), limit, unproven (the origin is to be
    asked for the blob itself, with the client's credential), foreign (what is here came from another origin, which
    gives it to nobody now).
    """

    digest: str
    reason: str
    message: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PieceHashes:
    """BLAKE3 hashes (32 bytes each, concatenated) of pieces `first`, `first+1`, ...; signed (proto.wire.tickets).

    They are vouched for once Vouched follows; a Voided takes them back. Hashes that a source can tell with the piece
    are not sent (peer.transport.wire).
    """

    swarm: int
    first: int
    hashes: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Vouched:
    """The whole blob matched its digest at the supernode. Nobody waits for it: it leaves with whatever follows."""

    swarm: int


@dataclass(frozen=True, slots=True)
class Voided:
    """The blob did not match its digest: drop every piece and hash of it; a new Announce starts afresh."""

    swarm: int
    message: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Fetch this piece from this node. The deadline counts from the start of the transfer.

    `ahead`: the source is about to end another transfer; ask at once and say so, it sends when that one has ended.
    `behind`: a lease of yours, 0 for none; connect at once, ask when that one's transfer is nearly over.
    `claim`: the hash that the piece is held to by the word of the peer that fetched it from the origin. Nobody vouches
    for it: no client is given any of it before the blob's digest has passed, or the supernode signed its hash.
    """

    lease: int
    swarm: int
    piece: int
    node: int
    expires_ms: int
    ahead: bool = False
    behind: int = 0
    claim: bytes = b""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this lease's transfer; it needs no outcome message."""

    lease: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """Another node says that this piece of yours came corrupt: read it again, and drop it if it has rotted."""

    swarm: int
    piece: int


@dataclass(frozen=True, slots=True)
class Preheat:
    """Have this blob in the store, although no client waits for it; answered by PreheatEnded, in the end.

    `private`: the source gives it, of `size_bytes`, to the supernode's login. Not `wanted`: no longer, unless a client
    asks for it.
    """

    digest: str
    source: Source
    size_bytes: int
    private: bool = False
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Keep:
    """Evict none of these blobs, here or yet to come; in place of what was named before, and until it is named anew."""

    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InlineBlob:
    """A tiny blob whole, in place of a lease on its single piece (`lease` is reported as for a Grant)."""

    lease: int
    swarm: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Holders:
    """Up to 20 nodes in the swarm that hold or fetch pieces: whom to ask if this session is lost.

    With the answer to an Announce and with pings; of a blob that travels in messages with pings alone.
    """

    swarm: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OriginStatus:
    """How the fetch from the origin goes; repeated every few seconds while it is not done.

    `state`: queued (others are fetched from that origin first), fetching, unreachable (one elected peer tries first),
    open (every peer may try). None of them is headway by itself. After it, to who waits without a lease while the swarm
    moves: sharing. A state that is not known says nothing. With fetching, `elected` says that this peer goes on with
    what it fetches by itself.
    `retry_after_s`: the origin wants no questions about the blob for so long, and nobody asks it.
    `pieces` (a mask as bytes): nobody holds these, and the elected peer asks for no others; empty: for all it misses.
    """

    swarm: int
    state: str
    elected: bool
    retry_after_s: float = 0.0
    pieces: bytes = b""


@dataclass(frozen=True, slots=True)
class TorrentOpened:
    """The blob's torrent (its .torrent file: BitTorrent v2, cut as the swarm is); all piece hashes came before it.

    Whoever wants the blob fetches it that way, whoever holds of it serves it so; no Grant follows.
    """

    swarm: int
    metainfo: bytes


@dataclass(frozen=True, slots=True)
class TorrentPeers:
    """Nodes to connect to for the blob's torrent, as a tracker names them."""

    swarm: int
    nodes: tuple[int, ...]


class FetchReason:
    """Why a transfer between peers failed: the values of `Failed.reason`."""

    BUSY = "busy"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    CORRUPT = "corrupt"
    NOT_HELD = "not_held"
    TICKET = "ticket"
    PROTOCOL = "protocol"
    LOCAL = "local"
    CANCELLED = "cancelled"
    # Nobody's fault: the piece's hash is not known here, and the source had none to tell.
    UNHASHED = "unhashed"


HOLDERS_MAX = 20

Message = (
    handshake.Challenge
    | handshake.Hello
    | handshake.Welcome
    | handshake.Refused
    | handshake.Ping
    | handshake.Pong
    | handshake.Clock
    | handshake.CertificateDue
    | Announce
    | Withdraw
    | Stored
    | Failed
    | ReaderMoved
    | PiecesWanted
    | BlobChecked
    | OriginTried
    | StoreReport
    | PreheatEnded
    | NodeKnown
    | SwarmOpened
    | BlobRefused
    | PieceHashes
    | Vouched
    | Voided
    | Grant
    | Cancel
    | Doubted
    | Preheat
    | Keep
    | InlineBlob
    | Holders
    | OriginStatus
    | TorrentOpened
    | TorrentPeers
)
