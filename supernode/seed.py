"""Peer zero: the supernode's own store, what fills it (the origin, or peers), and the digest of whole blobs.

Everything that touches disk or payload runs in threads here; what comes of it is reported on the event loop, through
Verification. It decides nothing: which pieces are fetched from where is the scheduler's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from peer.registry.queues import Work
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource, Transport
from proto.errors import BlobInUse, LayercastError, LocalError, UpstreamError
from proto.pieces import PieceLayout, indices, runs
from proto.runtime.traces import Span, Traces
from proto.wire.messages import FetchReason
from supernode.control.open_swarm import SeedBlob
from supernode.gathered_blob import UNLEASED
from supernode.origin.rate import OriginRate
from supernode.origin.sources import is_refusal
from supernode.seed_fetch import READ_BACK_BYTES_MAX, SeedFetch, SeedFetcher, read_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from peer.registry.queues import UpstreamQueues
    from peer.store.base import BlobHandle, BlobStore
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest, PeerId, PeerName
    from supernode.control.claims import Offer
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.verification import Verification
    from supernode.scheduler.contract import GrantLease
    from supernode.seed_fetch import BringPieces
    from supernode.signer import IdentitySigner

logger = logging.getLogger(__name__)

# A blob that nobody wants any more is fetched for so long: a node that lost its session comes back sooner. After nodes
# fell silent, for longer: where the network is cut they all do, and what is on its way would be asked for again.
UNWANTED_S: Final = 10.0
UNWANTED_SILENT_S: Final = 60.0
# So long a blob that is opened waits for what is left of an earlier swarm of it, and for room that others leave.
LEAVING_S: Final = 2.0
LOOK_S: Final = 0.05
# Threads for opening blobs, and for comparing digests (a core each while they read).
STORE_THREADS: Final = 4
CHECK_THREADS: Final = 2
# A piece at a rate that is worth waiting for; a probe is in nobody's way.
PROBE_DEADLINE_S: Final = 30.0


class Seed:
    """Implements SeedWork. Created on the loop; close() in a thread. What is gathered is looked at in `folder`."""

    def __init__(
        self,
        store: BlobStore,
        transport: Transport,
        bring: BringPieces,
        queues: UpstreamQueues,
        signer: IdentitySigner,
        folder: Path,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces or Traces()
        self._store = store
        self._transport = transport
        self._queues = queues
        self._signer = signer
        self._loop = asyncio.get_running_loop()
        self._events: Verification | None = None
        self._lock = threading.Lock()
        self._closing = False
        self.origin_rate: Final = OriginRate()
        self._fetcher = SeedFetcher(self._begin, bring, self._tell, self.origin_rate, transport, signer, folder)
        self._pins: dict[Digest, BlobHandle] = {}
        # What is to be pinned: threads may run in another order than their work was submitted.
        self._wanted: set[Digest] = set()
        # Whose fetches end soon, as nobody wants them; the loop's own.
        self._ending: dict[Digest, asyncio.TimerHandle] = {}
        self._fetches: dict[int, SeedFetch] = {}
        # What is under way to let go of a blob.
        self._leaving: dict[Digest, set[Future[None]]] = {}
        self._store_threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._check_threads = ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check")
        store.on_evicted(lambda digest: self._tell(lambda events: events.blob_evicted(digest)))
        store.on_rotten(lambda digest, pieces: self._tell(lambda events: events.pieces_rotten(digest, pieces)))

    def report_to(self, events: Verification) -> None:
        """Whom to tell; before any other call."""
        self._events = events

    def _tell(self, call: Callable[[Verification], None]) -> None:
        """From any thread: run `call` on the loop, unless that has ended."""
        events = self._events
        if events is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, events)

    # --- the store ---------------------------------------------------------------------------------------------

    async def look(self, digest: Digest) -> SeedBlob | None:
        """What the store has of a blob, once whatever had to do with an earlier swarm of it is over."""
        with self._lock:
            fetches = [fetch for fetch in self._fetches.values() if fetch.digest == digest and fetch.cancel.cancelled]
            leaving = [*self._leaving.get(digest, ()), *(fetch.turn for fetch in fetches if fetch.turn is not None)]
        if leaving:
            await asyncio.wait([asyncio.wrap_future(each) for each in leaving], timeout=LEAVING_S)
        return await self._loop.run_in_executor(self._store_threads, self._look, digest)

    def _look(self, digest: Digest) -> SeedBlob | None:
        handle = self._store.get(digest)
        if handle is None:
            return None
        try:
            if handle.layout.size_bytes <= READ_BACK_BYTES_MAX:
                # It goes into messages as it is.
                handle.check_pieces(handle.unchecked(handle.check_mark(for_peer=True)), "peer")
            held, found = 0, []
            for piece in indices(handle.held):
                piece_hash = handle.hash_of(piece)
                if piece_hash is not None:
                    held |= 1 << piece
                    found.append(piece_hash)
            joined, hashes, position = b"".join(found), [], 0
            for first, last in runs(held):
                end = position + (last - first + 1) * 32
                hashes.append((first, joined[position:end]))
                position = end
            content = read_back(handle) if held == handle.layout.full_mask else None
            return SeedBlob(handle.layout, held, handle.complete, tuple(hashes), content)
        finally:
            handle.close()

    def pin(self, digest: Digest, layout: PieceLayout) -> None:
        """See SeedWork."""
        self._go_on(digest)
        with self._lock:
            self._wanted.add(digest)
        self._store_threads.submit(self._pin, digest, layout)

    def _pin(self, digest: Digest, layout: PieceLayout) -> None:
        """Keep what the store has of it. What is not begun yet is pinned by whoever begins it."""
        with self._lock:
            if digest in self._pins or digest not in self._wanted or self._closing:
                return
        handle = self._store.get(digest)
        if handle is None:
            return
        with self._lock:
            if handle.layout == layout and digest not in self._pins and digest in self._wanted and not self._closing:
                self._pins[digest] = handle
                return
        handle.close()

    def _begin(self, swarm: OpenSwarm, cancel: Cancellation | None = None) -> BlobHandle:
        """Open it in the store, and pin it if it is wanted. With `cancel` it may wait: for room until blobs are closed
        that nobody needs any more, and for pieces of an earlier cut, of another size, that are still on their way.

        Raises LocalError.
        """
        until_s = time.monotonic() + LEAVING_S

        def waits_on() -> bool:
            return cancel is not None and not cancel.cancelled and time.monotonic() < until_s

        while True:
            try:
                handle = self._store.open(swarm.digest, swarm.layout, waits_on=waits_on)
                break
            except BlobInUse:
                if not waits_on():
                    raise
            time.sleep(LOOK_S)
        if handle.layout != swarm.layout:
            # Its pieces and their hashes would be told as those of the swarm.
            handle.close()
            raise LocalError(f"blob {swarm.digest.short} is whole here, in other pieces than the swarm's")
        self._pin(swarm.digest, swarm.layout)
        return handle

    def unpin(self, digest: Digest, *, silent: bool) -> None:
        """See SeedWork."""
        with self._lock:
            self._wanted.discard(digest)
        self._go_on(digest)
        wait_s = UNWANTED_SILENT_S if silent else UNWANTED_S
        self._ending[digest] = self._loop.call_later(wait_s, self._end_unwanted, digest)
        self._let_go(digest, self._unpin)

    def _let_go(self, digest: Digest, work: Callable[[Digest], None]) -> None:
        ended = self._store_threads.submit(work, digest)
        with self._lock:
            self._leaving.setdefault(digest, set()).add(ended)
        ended.add_done_callback(lambda _: self._has_left(digest, ended))

    def _has_left(self, digest: Digest, ended: Future[None]) -> None:
        with self._lock:
            others = self._leaving[digest] - {ended}
            self._leaving[digest] = others
            if not others:
                del self._leaving[digest]

    def _unpin(self, digest: Digest) -> None:
        with self._lock:
            handle = self._pins.pop(digest, None) if digest not in self._wanted else None
        if handle is not None:
            handle.close()

    # --- from the origin -----------------------------------------------------------------------------------------

    def fetch_from_origin(
        self, fetch_id: int, swarm: OpenSwarm, pieces: int, offers: dict[int, tuple[Offer, ...]]
    ) -> None:
        """See SeedWork. It waits in the queue of its first source, where no other upstream's fetches are."""
        askers = swarm.all_wanting
        fetch = SeedFetch(swarm.digest, swarm.fetch_sources, pieces, swarm.inline, offers, swarm.private, set(askers))
        number, upstream = swarm.number, fetch.upstream
        span = Span()
        if self._traces.on and swarm.trace:
            span = self._traces.begin("origin", swarm.trace, digest=str(swarm.digest), upstream=upstream)

        def run() -> None:
            fetch.begun = True
            self._tell(lambda events: events.origin_began(fetch_id, number))
            error: LayercastError | None
            try:
                error = self._fetcher.run(swarm, fetch)
            except Exception:
                # Our own bug: logged loudly, but whoever waits for the end must hear of it.
                logger.exception("origin_fetch_failed digest=%s", swarm.digest.short)
                error = LocalError("internal error while fetching from an origin; see the log")
            ended(error)

        def ended(error: LayercastError | None) -> None:
            with self._lock:
                self._fetches.pop(fetch_id, None)
            # Of a private blob it is our login that was refused: members may do better with theirs.
            decided = isinstance(error, UpstreamError) and is_refusal(error) and not fetch.private
            refused = str(error) if decided else ""
            retry_after_s = (error.retry_after_s or 0.0) if isinstance(error, UpstreamError) else 0.0
            span.end("" if error is None else getattr(getattr(error, "kind", None), "value", "local"))
            self._tell(
                lambda events: events.origin_ended(
                    fetch_id, number, ok=error is None, refused=refused, retry_after_s=retry_after_s
                )
            )

        with self._lock:
            self._fetches[fetch_id] = fetch
            fetch.turn = self._queues.submit(Work.FETCH, upstream, run, asker=next(iter(askers), None))
            for other in askers[1:]:
                self._queues.also_ask(Work.FETCH, upstream, fetch.turn, other)
        # Given up before its turn came.
        fetch.turn.add_done_callback(lambda turn: ended(LocalError("cancelled")) if turn.cancelled() else None)

    def also_wanted(self, fetch_id: int, asker: PeerName) -> None:
        """See SeedWork."""
        with self._lock:
            fetch = self._fetches.get(fetch_id)
            if fetch is None or fetch.turn is None or asker in fetch.askers:
                return
            fetch.askers.add(asker)
            self._queues.also_ask(Work.FETCH, fetch.upstream, fetch.turn, asker)

    def cancel_origin(self, fetch_id: int) -> None:
        """See SeedWork."""
        with self._lock:
            fetch = self._fetches.get(fetch_id)
        if fetch is not None:
            fetch.end()

    def end_origin(self, fetch_id: int) -> None:
        """See SeedWork."""
        with self._lock:
            fetch = self._fetches.get(fetch_id)
        if fetch is not None:
            fetch.ending = True
            if not fetch.begun:
                fetch.end()

    def _go_on(self, digest: Digest) -> None:
        ending = self._ending.pop(digest, None)
        if ending is not None:
            ending.cancel()

    def _end_unwanted(self, digest: Digest) -> None:
        del self._ending[digest]
        with self._lock:
            fetches = [fetch for fetch in self._fetches.values() if fetch.digest == digest]
        for fetch in fetches:
            fetch.end()

    # --- from peers ----------------------------------------------------------------------------------------------

    def fetch_from_peer(
        self, grant: GrantLease, swarm: OpenSwarm, piece_hash: bytes, peer: PeerId, source: PieceSource
    ) -> None:
        """See SeedWork."""
        lease_id, piece = grant.lease_id, grant.piece

        def report(outcome: FetchOutcome) -> None:
            if outcome.message:
                logger.error("piece_not_stored error=%s", outcome.message)
            reason, elapsed_s, stored_bytes = outcome.reason, outcome.elapsed_s, outcome.stored_bytes
            self._tell(
                lambda events: events.seed_lease_ended(
                    lease_id, swarm.number, piece, reason, elapsed_s, stored_bytes, peer
                )
            )

        self._submit_transfer(swarm, piece_hash, report, lease_id, piece, source, grant.expires_in_s)

    def probe(self, swarm: OpenSwarm, piece: int, piece_hash: bytes, peer: PeerId, source: PieceSource) -> None:
        """See SeedWork. Of a piece that is held the store only compares what comes."""

        def report(outcome: FetchOutcome) -> None:
            self._tell(lambda events: events.probed(swarm.digest, piece, peer, outcome.reason))

        self._submit_transfer(swarm, piece_hash, report, next(UNLEASED), piece, source, PROBE_DEADLINE_S)

    def _submit_transfer(
        self,
        swarm: OpenSwarm,
        piece_hash: bytes,
        report: Callable[[FetchOutcome], None],
        fetch_id: int,
        piece: int,
        source: PieceSource,
        deadline_s: float,
    ) -> None:
        ticket = self._signer.ticket(swarm.digest, self._signer.peer)

        def fetch_with(handle: BlobHandle) -> PieceFetch:
            handle.trust_hashes(piece, piece_hash)
            return PieceFetch(fetch_id, handle, piece, source, ticket, deadline_s)

        self._store_threads.submit(self._start_transfer, swarm, fetch_id, fetch_with, report)

    def _start_transfer(
        self,
        swarm: OpenSwarm,
        fetch_id: int,
        fetch_with: Callable[[BlobHandle], PieceFetch],
        report: Callable[[FetchOutcome], None],
    ) -> None:
        def ended(outcome: FetchOutcome) -> None:
            handle.close()
            report(outcome)

        try:
            handle = self._begin(swarm)
        except LocalError as error:
            report(FetchOutcome(fetch_id, FetchReason.LOCAL, 0.0, 0, message=str(error)))
            return
        try:
            fetch = fetch_with(handle)
        except LayercastError as error:
            ended(FetchOutcome(fetch_id, FetchReason.LOCAL, 0.0, 0, message=str(error)))
            return
        self._transport.start(fetch, ended)

    def cancel_fetch(self, lease_id: int) -> None:
        """See SeedWork."""
        self._transport.cancel(lease_id)

    # --- the whole blob ------------------------------------------------------------------------------------------

    def void(self, digest: Digest) -> None:
        """See SeedWork."""
        with self._lock:
            closing = self._closing
        if not closing:
            self._let_go(digest, self._void)

    def _void(self, digest: Digest) -> None:
        handle = self._store.get(digest)
        if handle is not None:
            try:
                handle.void()
            except LocalError as error:
                logger.error("blob_not_voided digest=%s error=%s", digest.short, error)
            finally:
                handle.close()

    def suspect(self, digest: Digest, pieces: int) -> None:
        """See SeedWork."""
        self._store.suspect(digest, pieces)

    def check(self, swarm: OpenSwarm) -> None:
        """See SeedWork."""
        self._check_threads.submit(self._check, swarm.number, swarm.digest)

    def _check(self, swarm: int, digest: Digest) -> None:
        matches: bool | None = None
        handle = self._store.get(digest)
        if handle is not None:
            try:
                matches = handle.check_digest()
                if not matches and handle.held != handle.layout.full_mask:
                    matches = None  # it is not wrong: pieces rotted, and that was reported
                elif not matches:
                    handle.void()
            except LocalError as error:
                logger.error("digest_not_checked digest=%s error=%s", digest.short, error)
            finally:
                handle.close()
        self._tell(lambda events: events.blob_checked(swarm, matches))

    def cancel_all(self) -> None:
        """End every fetch from origins now, and begin none."""
        with self._lock:
            self._closing = True
            fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.end()

    def close(self) -> None:
        """Blocking: wait for every thread but the queues', close every blob. What was given is closed by its maker."""
        self.cancel_all()
        for executor in (self._check_threads, self._store_threads):
            executor.shutdown(wait=True, cancel_futures=True)
        for handle in self._pins.values():
            handle.close()
        self._pins.clear()
