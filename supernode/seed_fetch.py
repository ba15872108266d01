"""One fetch into the supernode's own store: pieces from an origin, and what members offer of them.

Runs in a thread. Which pieces, and when, is the scheduler's to say; whose turn it is at an origin is the queues'.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import LocalError, PieceCorrupt, UpstreamError
from proto.pieces import indices, mask_of
from supernode.gathered_blob import GatheredBlob

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from peer.store.base import BlobHandle
    from peer.transport.base import Transport
    from proto.errors import LayercastError
    from proto.ids import Digest, PeerName
    from proto.wire.messages import Source
    from supernode.control.claims import Offer
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.verification import Verification
    from supernode.origin.rate import OriginRate
    from supernode.signer import IdentitySigner

    OnPiece = Callable[[int, bytes], None]

    class BringPieces(Protocol):
        """Blocking: brings the pieces of a mask into the store (supernode.origin.sources.OriginFetcher.fetch)."""

        def __call__(
            self,
            handle: BlobHandle,
            sources: tuple[Source, ...],
            pieces: int,
            on_piece: OnPiece,
            cancel: Cancellation,
            on_bytes: Callable[[], None],
            *,
            private: bool = False,
        ) -> None: ...


logger = logging.getLogger(__name__)

# How often it is told that bytes come from an origin.
TELL_MOVED_S: Final = 0.1
# A blob up to this size is read back whole, for InlineBlob.
READ_BACK_BYTES_MAX: Final = 64 * 1024


@dataclass(slots=True)
class SeedFetch:
    """A fetch that waits for its turn or runs."""

    digest: Digest
    sources: tuple[Source, ...]
    pieces: int
    read_back: bool
    offers: dict[int, tuple[Offer, ...]]
    private: bool
    # Members that it has turns of.
    askers: set[PeerName]
    cancel: Cancellation = field(default_factory=Cancellation)
    # It ends after the piece in hand.
    ending: bool = False
    begun: bool = False
    turn: Future[None] | None = None
    moved_told_s: float = float("-inf")

    @property
    def upstream(self) -> str:
        """In whose queue it waits."""
        return self.sources[0].upstream if self.sources else ""

    def piece_stored(self) -> None:
        """A piece is in the store: it may have been waited for with that."""
        if self.ending:
            self.cancel.cancel()

    def end(self) -> None:
        """Now, wherever it is."""
        self.cancel.cancel()
        if self.turn is not None:
            self.turn.cancel()


class SeedFetcher:
    """Brings the pieces of fetches. `begin` opens a swarm's blob in the store (raises LocalError), `bring` reads pieces
    from an origin, `tell` runs a call on the event loop. What members give is kept in `folder` until it was compared.
    """

    def __init__(
        self,
        begin: Callable[[OpenSwarm, Cancellation], BlobHandle],
        bring: BringPieces,
        tell: Callable[[Callable[[Verification], None]], None],
        rate: OriginRate,
        transport: Transport,
        signer: IdentitySigner,
        folder: Path,
    ) -> None:
        self._begin = begin
        self._bring = bring
        self._tell = tell
        self._rate = rate
        self._transport = transport
        self._signer = signer
        self._folder = folder

    def run(self, swarm: OpenSwarm, fetch: SeedFetch) -> LayercastError | None:
        """Blocking. How it failed, if it did; each piece that was stored is told before."""
        started_s, digest = time.monotonic(), swarm.digest
        try:
            fetch.cancel.check()
            handle = self._begin(swarm, fetch.cancel)
        except FetchCancelled:
            return LocalError("cancelled")
        except LocalError as error:
            logger.error("store_refused digest=%s error=%s", digest.short, error)
            return error

        def stored(piece: int, piece_hash: bytes) -> None:
            content = read_back(handle) if fetch.read_back else None
            self._tell(lambda events: events.seed_stored(swarm.number, piece, piece_hash, content))
            fetch.piece_stored()

        def received() -> None:
            # Streams of one fetch may both tell it: no harm.
            now = time.monotonic()
            if now - fetch.moved_told_s >= TELL_MOVED_S:
                fetch.moved_told_s = now
                self._tell(lambda events: events.origin_moved(swarm.number))

        try:
            pieces = fetch.pieces & ~mask_of(fetch.offers)
            if pieces:
                self._ask_origin(handle, fetch, pieces, stored, received)
            if fetch.offers:
                self._take_offered(handle, fetch, stored, received)
        except FetchCancelled:
            return LocalError("cancelled")
        except (UpstreamError, LocalError) as error:
            logger.warning("origin_fetch_failed digest=%s error=%s", digest.short, error)
            return error
        finally:
            handle.close()
        logger.info("origin_fetch_done digest=%s elapsed_s=%.3f", digest.short, time.monotonic() - started_s)
        return None

    def _ask_origin(
        self, handle: BlobHandle, fetch: SeedFetch, pieces: int, stored: OnPiece, received: Callable[[], None]
    ) -> None:
        """Bring these pieces from the origin. Raises UpstreamError, LocalError, FetchCancelled."""
        first_s = 0.0

        def chunk_received() -> None:
            nonlocal first_s
            first_s = first_s or time.monotonic()
            received()

        self._bring(handle, fetch.sources, pieces, stored, fetch.cancel, chunk_received, private=fetch.private)
        layout = handle.layout
        size_bytes = min(layout.size_bytes, pieces.bit_count() * layout.piece_size_bytes)
        self._rate.came(size_bytes, time.monotonic() - first_s)

    def _take_offered(
        self, handle: BlobHandle, fetch: SeedFetch, stored: OnPiece, received: Callable[[], None]
    ) -> None:
        """Bring what members offer, and from the origin what they do not give; store it if the whole is the blob.

        If not, the origin is asked for all of it, and the bytes of each member are compared with its.
        """
        left = fetch.pieces & mask_of(fetch.offers)
        try:
            with contextlib.closing(GatheredBlob(handle, fetch.offers, self._folder)) as gathered:
                gathered.bring(self._transport, self._signer.ticket(handle.digest, self._signer.peer), fetch.cancel)
                given = mask_of(gathered.given)
                if rest := left & ~given:
                    self._ask_origin(handle, fetch, rest, stored, received)
                whole = given | handle.held == handle.layout.full_mask
                matches = gathered.matches(fetch.cancel) if given and whole else None
                refused = frozenset(gathered.refused)
                self._tell(lambda events: events.offers_tried(handle.digest, gathered.given, refused, matches))
                for piece in indices(given & ~handle.held) if matches else ():
                    _copy(gathered, handle, piece, stored)
        except (LocalError, PieceCorrupt) as error:
            logger.warning("offers_not_used digest=%s error=%s", handle.digest.short, error)
        if left := left & ~handle.held:
            self._ask_origin(handle, fetch, left, stored, received)


def _copy(gathered: GatheredBlob, handle: BlobHandle, piece: int, stored: Callable[[int, bytes], None]) -> None:
    """Into the store, hashed anew. Raises LocalError, PieceCorrupt."""
    writer = handle.writer(piece, from_origin=True)
    try:
        writer.write(gathered.slice_of(piece))
        stored(piece, writer.finish())
    finally:
        writer.abort()


def read_back(handle: BlobHandle) -> bytes | None:
    """The whole blob, if it is tiny and readable."""
    size_bytes = handle.layout.size_bytes
    if size_bytes > READ_BACK_BYTES_MAX:
        return None
    try:
        content = os.pread(handle.fileno(), size_bytes, 0)
    except OSError:
        return None  # the piece is served from the store like any other
    return content if len(content) == size_bytes else None
