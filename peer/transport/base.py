"""What every transport between peers offers: fetch one piece into the store, and be cancelled. No policy lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import PieceWriter, SignedHashes
    from proto.ids import Digest, PeerName
    from proto.pieces import PieceLayout


@dataclass(frozen=True, slots=True)
class PieceSource:
    """A peer to fetch from: its name and its upload address, HOST:PORT. `encrypted`: by TLS, and no other way."""

    peer: PeerName
    address: str
    encrypted: bool = False


class PieceTarget(Protocol):
    """Where pieces go: a blob in the store (peer.store.base.BlobHandle), or one that is looked at before it counts."""

    @property
    def digest(self) -> Digest: ...

    @property
    def layout(self) -> PieceLayout: ...

    def hash_of(self, piece: int) -> bytes | None:
        """What the piece must match; None while that is not known. Raises LocalError."""
        ...

    def writer(self, piece: int, *, from_origin: bool = False, claim: bytes = b"") -> PieceWriter:
        """Start a piece, see peer.store.base.BlobHandle. Raises LocalError."""
        ...


@dataclass(frozen=True, slots=True)
class PieceFetch:
    """One transfer. The deadline counts from the first byte of the answer; waiting for a slot is bounded apart.

    `ahead`: the source is about to end another transfer, and is to begin this one only then. `behind`: the fetch of our
    own (its id, 0 for none) that is to be nearly over before the source is asked: both would share our link.

    `learn` takes the piece's hash as the supernode signed it, where the store does not know it and the source tells it
    with the piece: it checks the signature and gives the hash to the store. From any thread; raises RemoteError or
    LocalError. `unproven`: take the piece also where nobody signed its hash; the blob's digest will tell. `claim`: the
    same, held to this hash.
    """

    fetch_id: int
    blob: PieceTarget
    piece: int
    source: PieceSource
    ticket: bytes
    deadline_s: float
    ahead: bool = False
    behind: int = 0
    learn: Callable[[SignedHashes], None] | None = None
    unproven: bool = False
    claim: bytes = b""


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """The one end of a transfer. `reason` is empty on success, else a proto.wire.messages.FetchReason value."""

    fetch_id: int
    reason: str
    elapsed_s: float
    # Payload bytes that made a piece held: all of the piece, or 0 for a failed transfer or a second copy.
    stored_bytes: int
    # Payload bytes that came without that use.
    discarded_bytes: int = 0
    # The store's own trouble (disk full and the like) when reason is "local"; the operator's line.
    message: str = ""
    # From start() to the request, and from that to the first byte of its answer.
    waited_s: float = 0.0
    answered_s: float = 0.0


class Transport(Protocol):
    """Threads of its own; `done` is called exactly once per fetch, from one of them, also after cancel()."""

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        """Begin a transfer; it never raises for what the remote does."""
        ...

    def cancel(self, fetch_id: int) -> None:
        """End it now (the connection is closed); its outcome is `cancelled` unless it was already done."""
        ...

    def connect(self, source: PieceSource, ticket: bytes) -> None:
        """Something will soon be fetched from there with this ticket: a connection may be opened, and say whose it is.

        Never waits, tells no outcome.
        """
        ...

    def bitfield(
        self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float
    ) -> tuple[PieceLayout, int] | None:
        """Blocking: a peer's layout and mask of the blob, None when it knows nothing of it. Raises RemoteError."""
        ...

    def hashes(self, source: PieceSource, digest: Digest, ticket: bytes, timeout_s: float) -> bytes:
        """Blocking: the signed hash runs a peer holds, in wire form (see http). Raises RemoteError."""
        ...

    def close(self) -> None:
        """Cancel all, join the threads."""
        ...
