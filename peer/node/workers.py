"""What the downloader has done in threads: the store's calls, digest checks, questions to peers and origins, fetches.

Each call begins something and posts exactly one outcome event from a thread. No state of the downloader lives here.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import (
    DigestChecked,
    FetchEnded,
    HashesConflict,
    HashesLearned,
    HoldingsKnown,
    PublicChecked,
)
from peer.node.blob_spans import BlobSpans
from peer.registry.base import ANYONE, REFUSAL_REASONS
from peer.registry.queues import Work
from peer.transport.base import PieceFetch, PieceSource
from peer.transport.cancellation import Cancellation, FetchCancelled
from peer.transport.wire import decode_hashes
from proto.errors import (
    FrameInvalid,
    LayercastError,
    LocalError,
    PeerBusy,
    PieceCorrupt,
    RemoteError,
    TicketInvalid,
    UpstreamError,
)
from proto.pieces import PieceLayout
from proto.wire.messages import FetchReason
from proto.wire.tickets import check_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import (
        AskHoldings,
        CheckPublic,
        Event,
        Holder,
        LeaveOrigin,
        OpenInStore,
        StartFetch,
        StoreContent,
    )
    from peer.metrics import Metrics
    from peer.node.origin_fetch import UpstreamFetcher
    from peer.registry.origins import Origins
    from peer.store.base import BlobHandle, BlobStore, SignedHashes
    from peer.transport.base import FetchOutcome, Transport
    from proto.ids import Digest

    Post = Callable[[Event], None]

logger = logging.getLogger(__name__)

QUESTION_TIMEOUT_S: Final = 5.0
# So long a blob waits for the room of others whose last bytes are on their way to a busy disk, or to clients: else each
# node would bring it from the origin by itself. Clients wait longer for headers.
ROOM_WAIT_S: Final = 10.0
# What one reader has checked at a time, before it is sent: a few milliseconds' reading, and as much as is on its way.
CHECK_AHEAD_BYTES: Final = 32 * 1024 * 1024


class _RoomIsToCome(Exception):
    """A blob fits into the store once others are closed."""


def _begin_to_wait() -> bool:
    raise _RoomIsToCome


class Workers:
    """Small pools, so that a long digest check never delays the opening of a blob. close() joins them all.

    `encrypted` says which blobs come from peers by TLS alone. `transport` and `fetcher` have threads of their own, and
    end with these; `store` does not.
    """

    def __init__(
        self,
        store: BlobStore,
        transport: Transport,
        fetcher: UpstreamFetcher,
        origins: Origins,
        metrics: Metrics,
        encrypted: Callable[[Digest], bool] = lambda digest: False,
        spans: BlobSpans | None = None,
    ) -> None:
        self.store = store
        self.transport = transport
        self.fetcher = fetcher
        self._origins = origins
        self._metrics = metrics
        self._encrypted = encrypted
        self.spans = spans or BlobSpans()
        self._disk = ThreadPoolExecutor(2, thread_name_prefix="store")
        self._openings = ThreadPoolExecutor(8, thread_name_prefix="open")
        # Those of them that wait for room, so that no other blob stands behind one.
        self._waiting = ThreadPoolExecutor(8, thread_name_prefix="room")
        self._checks = ThreadPoolExecutor(2, thread_name_prefix="digest")
        # A client waits for these: they do not stand behind the digest of a large blob.
        self._rereads = ThreadPoolExecutor(2, thread_name_prefix="reread")
        self._questions = ThreadPoolExecutor(4, thread_name_prefix="question")
        self._cancel = Cancellation()
        self._kept: frozenset[Digest] = frozenset()
        self._keeping = threading.Lock()

    def close(self) -> None:
        """End everything that can be ended, and join the threads."""
        self._cancel.cancel()
        self.fetcher.close()
        self.transport.close()
        for pool in (self._questions, self._openings, self._waiting, self._disk, self._checks, self._rereads):
            pool.shutdown(wait=True, cancel_futures=True)

    # --- the store ---------------------------------------------------------------------------------------------

    def open(self, command: OpenInStore, opened: Callable[[Digest, PieceLayout, BlobHandle | str], None]) -> None:
        """Pin a blob; `opened` is called with its handle or with what is wrong."""
        digest, layout = command.digest, PieceLayout(command.size_bytes, command.piece_size_bytes)
        until_s = time.monotonic() + ROOM_WAIT_S

        def waits_on() -> bool:
            return time.monotonic() < until_s and not self._cancel.cancelled

        def wait() -> None:
            opened(digest, layout, self._open(digest, layout, waits_on))

        def run() -> None:
            try:
                found = self._open(digest, layout, _begin_to_wait)
            except _RoomIsToCome:
                self._waiting.submit(wait)
            else:
                opened(digest, layout, found)

        self._openings.submit(run)

    def _open(self, digest: Digest, layout: PieceLayout, waits_on: Callable[[], bool]) -> BlobHandle | str:
        try:
            return self.store.open(digest, layout, waits_on=waits_on)
        except _RoomIsToCome:
            raise
        except Exception as error:
            return _trouble(error, "store_open_failed", digest)

    def keep(self, digests: frozenset[Digest]) -> None:
        """The store evicts none of these, the last that were named."""
        self._kept = digests
        self._disk.submit(self._keep)

    def _keep(self) -> None:
        try:
            with self._keeping:
                self.store.keep(self._kept)
        except LocalError as error:
            logger.error("keep_failed %s", error)

    def store_content(self, command: StoreContent, handle: BlobHandle, post: Post) -> None:
        """Put a tiny blob's one piece, which came inside a message, into the store."""

        def run() -> None:
            reason, message = _stored(handle, command.content)
            if not reason:
                self._metrics.received("seed", len(command.content))
            post(FetchEnded(command.fetch, reason, 0.0, message))

        self._disk.submit(run)

    def check_digest(self, check: int, handle: BlobHandle, post: Post, matched: Callable[[], None]) -> None:
        """Compare the whole blob's digest. `matched` is called from a thread as soon as it has passed."""

        def run() -> None:
            matches, trouble = False, ""
            try:
                matches = handle.check_digest(matched)
            except Exception as error:
                trouble = _trouble(error, "digest_check_failed", handle.digest)
            if not trouble:
                self._metrics.digest_checks.labels("ok" if matches else "mismatch").inc()
            post(DigestChecked(check, matches, trouble))

        self._checks.submit(run)

    def check_ahead(
        self, digest: Digest, first: int, mark: float, checked: Callable[[], None], ended: Callable[[str], None]
    ) -> None:
        """Check held pieces from `first` on that were not since `mark`: CHECK_AHEAD_BYTES of them, or up to a gap.

        `checked` is called from a thread for each piece, `ended` in the end with what went wrong, or nothing.
        """

        def run() -> None:
            trouble = ""
            try:
                self._check_ahead(digest, first, mark, checked)
            except LocalError as error:
                trouble = str(error)
            except Exception:
                logger.exception("pieces_not_checked digest=%s", digest.short)
                trouble = "internal error while checking the store; see the log"
            ended(trouble)

        self._rereads.submit(run)

    def _check_ahead(self, digest: Digest, first: int, mark: float, checked: Callable[[], None]) -> None:
        # A pin of its own: the file must not be closed under it.
        handle = self.store.get(digest, used=False)
        if handle is None:
            raise LocalError(f"blob {digest.short} left the store")
        try:
            size_bytes = 0
            for piece in range(first, handle.layout.count):
                if size_bytes >= CHECK_AHEAD_BYTES or not handle.held >> piece & 1:
                    return
                size_bytes += handle.layout.length(piece)
                if handle.check_pieces(handle.unchecked(mark, 1 << piece), "client"):
                    return
                checked()
        finally:
            handle.close()

    def keep_hashes(self, digest: Digest, signed: SignedHashes) -> None:
        """Checked hashes of a blob that nobody uses now: others will ask for them."""

        def run() -> None:
            handle = self.store.get(digest, used=False)
            if handle is None:
                return
            try:
                handle.learn_hashes(signed)
            except (PieceCorrupt, LocalError) as error:
                logger.warning("hashes_not_kept digest=%s %s", digest.short, error)
            finally:
                handle.close()

        self._disk.submit(run)

    # --- peers -------------------------------------------------------------------------------------------------

    def fetch(
        self, command: StartFetch, handle: BlobHandle, ticket: bytes, key: bytes | None, from_seed: bool, post: Post
    ) -> None:
        """A piece from a peer. `key`: the supernode's, by which a hash that comes with the piece is believed."""
        source, learned = "seed" if from_seed else "peer", 0
        begun_ns = time.time_ns()

        def learn(signed: SignedHashes) -> None:
            nonlocal learned
            assert key is not None
            learned |= _learn_with_piece(handle, key, post, signed)

        def done(outcome: FetchOutcome) -> None:
            self._metrics.received(source, outcome.stored_bytes)
            self._metrics.discarded_bytes.inc(outcome.discarded_bytes)
            if outcome.reason:
                self._metrics.piece_failures.labels(outcome.reason).inc()
            self.spans.fetched(command, begun_ns, outcome)
            post(
                FetchEnded(
                    command.fetch,
                    outcome.reason,
                    outcome.elapsed_s,
                    outcome.message,
                    outcome.waited_s,
                    outcome.answered_s,
                    learned,
                )
            )

        holder = self._source(command.holder, command.digest)
        if not ticket:
            post(FetchEnded(command.fetch, FetchReason.TICKET, 0.0))
            return
        fetch = PieceFetch(
            command.fetch,
            handle,
            command.piece,
            holder,
            ticket,
            command.deadline_s,
            ahead=command.ahead,
            behind=command.behind,
            unproven=command.unproven,
            claim=command.claim,
            learn=learn if key is not None else None,
        )
        self.transport.start(fetch, done)

    def ask_holdings(self, command: AskHoldings, ticket: bytes, key: bytes | None, post: Post) -> None:
        """What a peer holds; first the signed hashes it has, where we miss some.

        Under a pin of its own: the downloader may close the blob before the answer comes.
        """
        source = self._source(command.holder, command.digest)

        def run() -> None:
            held: int | None = None
            busy = False
            handle = self.store.get(command.digest, used=False)
            if handle is None:
                post(HoldingsKnown(command.query, None))
                return
            try:
                if command.hashes and key is not None:
                    learned = _ask_hashes(self.transport, source, handle, ticket, key, QUESTION_TIMEOUT_S)
                    post(HashesLearned(command.digest, learned))
                answer = self.transport.bitfield(source, command.digest, ticket, QUESTION_TIMEOUT_S)
                held = answer[1] if answer is not None and answer[0] == handle.layout else 0
            except Exception as error:
                busy = isinstance(error, PeerBusy)
                trouble = _trouble(error, "question_failed", command.digest)
                logger.debug("holder_not_asked digest=%s %s", command.digest.short, trouble)
            finally:
                handle.close()
            post(HoldingsKnown(command.query, held, busy=busy))

        self._questions.submit(run)

    def _source(self, holder: Holder, digest: Digest) -> PieceSource:
        return PieceSource(holder.peer, holder.address, encrypted=self._encrypted(digest))

    # --- origins -----------------------------------------------------------------------------------------------

    def leave_origin(self, command: LeaveOrigin) -> None:
        """Nothing of this node's asks for the blob at these places for a while, but clients with a credential."""
        for source in command.sources:
            self._origins.leave_alone(source, command.digest, command.seconds)

    def check_public(self, command: CheckPublic, post: Post) -> None:
        """A question of this node's own to the origin, without any credential."""

        def run() -> None:
            size, reason, message, retry_after_s = 0, "unavailable", "", 0.0
            try:
                origin = self._origins.at(source.upstream)
                known = origin.stat(source.repository, command.digest, ANYONE, self._cancel, manifest=source.manifest)
                if known is None:
                    message = f"origin {source.upstream} does not say how large the blob is"
                else:
                    size, reason = known, ""
            except UpstreamError as error:
                reason, message = REFUSAL_REASONS[error.kind], str(error)
                retry_after_s = error.retry_after_s or 0.0
            except Exception as error:
                message = _trouble(error, "public_check_failed", command.digest)
            post(PublicChecked(command.check, size, reason, message, retry_after_s))

        source = command.source
        self._origins.queues.submit(Work.CHECK, source.upstream, run)


def _stored(handle: BlobHandle, content: bytes) -> tuple[str, str]:
    """Put a one-piece blob's content into the store: (reason, message), empty on success. Blocking."""
    try:
        if len(content) != handle.layout.size_bytes:
            return FetchReason.PROTOCOL, ""
        writer = handle.writer(0, from_origin=handle.hash_of(0) is None)
        try:
            writer.write(memoryview(content))
            writer.finish()
        finally:
            writer.abort()
    except PieceCorrupt:
        return FetchReason.CORRUPT, ""
    except Exception as error:
        return FetchReason.LOCAL, _trouble(error, "inline_blob_failed", handle.digest)
    return "", ""


def _trouble(error: Exception, event: str, digest: Digest) -> str:
    """What went wrong. A bug of ours is logged as this event, but whoever waits for the outcome gets one, too."""
    if isinstance(error, LayercastError | FetchCancelled):
        return str(error)
    logger.error("%s digest=%s", event, digest.short, exc_info=error)
    return "internal error; see the log"


def _ask_hashes(
    transport: Transport, source: PieceSource, handle: BlobHandle, ticket: bytes, key: bytes, timeout_s: float
) -> int:
    """Ask a peer for the hashes it has, and learn those that are missing here: which (mask). `key`: the supernode's."""
    try:
        layout, signed_runs = decode_hashes(transport.hashes(source, handle.digest, ticket, timeout_s))
    except RemoteError as error:
        logger.debug("hashes_not_told digest=%s %s", handle.digest.short, error)
        return 0
    learned = 0
    if layout != handle.layout:
        return 0
    for signed in signed_runs:
        if _all_known(handle, signed):
            continue
        try:
            _check_signed(key, handle, signed)
            handle.learn_hashes(signed)
        except (TicketInvalid, PieceCorrupt) as error:
            logger.warning("hashes_ignored digest=%s %s", handle.digest.short, error)
            continue
        learned |= signed.pieces
    return learned


def _learn_with_piece(handle: BlobHandle, key: bytes, post: Post, signed: SignedHashes) -> int:
    """Learn a run that came with a piece; see PieceFetch.learn. Returns which pieces it is of (mask)."""
    if signed.first + signed.count > handle.layout.count:
        raise FrameInvalid(f"a run of {signed.count} hashes from piece {signed.first} does not fit the blob")
    _check_signed(key, handle, signed)
    try:
        handle.learn_hashes(signed)
    except PieceCorrupt as error:
        # The supernode contradicts pieces that are held here: the peer that passed the hash on did nothing wrong.
        logger.warning("hashes_conflict %s", error)
        post(HashesConflict(handle.digest))
        return 0
    return signed.pieces


def _all_known(handle: BlobHandle, signed: SignedHashes) -> bool:
    """Nothing is to be learnt from it: a look is cheaper than a signature."""
    return all(handle.hash_of(signed.first + piece) is not None for piece in range(signed.count))


def _check_signed(key: bytes, handle: BlobHandle, signed: SignedHashes) -> None:
    """Raises TicketInvalid unless the supernode signed these hashes for this blob."""
    check_hashes(key, handle.digest, handle.layout, signed.first, signed.hashes, signed.signature)
