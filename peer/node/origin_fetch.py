"""This node's own fetches from an origin: missing pieces by byte ranges, in threads, straight into the store.

Whether and what to ask is the downloader's word. A body that is cut is resumed at the byte reached; an origin that
answers a range with the whole blob is read through and the rest dropped. No byte of it passes the event loop.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import LayercastError, LocalError, PieceCorrupt, UpstreamError, UpstreamKind
from proto.pieces import runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.blob_response import BlobResponse
    from peer.registry.reader import RegistryReader
    from peer.store.base import BlobHandle, PieceWriter
    from proto.oci.upstreams import UpstreamTable
    from proto.wire.messages import Source

logger = logging.getLogger(__name__)

BUFFER_BYTES: Final = 256 * 1024
# Waits between attempts that brought nothing; one that brought bytes starts the row anew.
RETRY_WAITS_S: Final = (0.2, 1.0, 2.0, 4.0)
# An origin that wants a longer pause is left to the client to try.
RETRY_AFTER_MAX_S: Final = 10.0
_LASTING: Final = (UpstreamKind.DENIED, UpstreamKind.UNKNOWN, UpstreamKind.CONTENT)


@dataclass(slots=True)
class UpstreamFetch:
    """One fetch. `piece_done` and `ended` are called from its thread; `ended` exactly once, with (reason, message)."""

    blob: BlobHandle
    source: Source
    pieces: int
    first: int
    piece_done: Callable[[int], None]
    ended: Callable[[str, str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    cancel: Cancellation = field(default_factory=Cancellation)


class UpstreamFetcher:
    """Up to `workers` fetches at a time; more wait in order. `received` is told of payload bytes, from any thread."""

    def __init__(
        self,
        reader: RegistryReader,
        table: Callable[[], UpstreamTable],
        received: Callable[[int], None],
        *,
        workers: int = 4,
    ) -> None:
        self._reader = reader
        self._table = table
        self._received = received
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="upstream")
        self._running: dict[int, UpstreamFetch] = {}
        self._lock = threading.Lock()

    def start(self, number: int, fetch: UpstreamFetch) -> None:
        """Begin; never raises for what the origin does."""
        with self._lock:
            self._running[number] = fetch
        self._executor.submit(self._run, number, fetch)

    def stop(self, number: int) -> None:
        """End after the piece in hand; reason `cancelled`."""
        with self._lock:
            fetch = self._running.get(number)
        if fetch is not None:
            fetch.stop.set()

    def close(self) -> None:
        """End all now and join the threads."""
        with self._lock:
            running = list(self._running.values())
        for fetch in running:
            fetch.stop.set()
            fetch.cancel.cancel()
        self._executor.shutdown(wait=True)

    def _run(self, number: int, fetch: UpstreamFetch) -> None:
        reason, message = "", ""
        try:
            _Reading(self._reader, self._table(), fetch, self._received).run()
        except FetchCancelled:
            reason = "cancelled"
        except UpstreamError as error:
            reason, message = error.kind.value, str(error)
        except PieceCorrupt as error:
            reason, message = UpstreamKind.CONTENT.value, str(error)
        except LocalError as error:
            reason, message = "local", str(error)
        except LayercastError as error:
            reason, message = UpstreamKind.UNAVAILABLE.value, str(error)
        except Exception:
            # Our own bug: told loudly, but whoever waits for the outcome must get one.
            logger.exception("upstream_fetch_failed digest=%s", fetch.blob.digest.short)
            reason, message = "local", "internal error while fetching from upstream; see the log"
        with self._lock:
            del self._running[number]
        if message:
            logger.warning(
                "upstream_fetch digest=%s upstream=%s reason=%s %s",
                fetch.blob.digest.short, fetch.source.upstream, reason, message,
            )  # fmt: skip
        fetch.ended(reason, message)


class _Reading:
    """The state of one fetch in its thread."""

    def __init__(
        self, reader: RegistryReader, table: UpstreamTable, fetch: UpstreamFetch, received: Callable[[int], None]
    ) -> None:
        self._reader = reader
        self._upstream = table.lookup(fetch.source.upstream)
        self._fetch = fetch
        self._blob = fetch.blob
        self._layout = fetch.blob.layout
        self._received = received
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._wanted = fetch.pieces
        self._writer: PieceWriter | None = None
        self._piece = 0
        self._got_bytes = 0

    def run(self) -> None:
        """All pieces, run by run. Raises what ends it early."""
        ahead = self._wanted >> self._fetch.first << self._fetch.first
        try:
            for mask in (ahead, self._wanted & ~ahead):
                for first, last in runs(mask):
                    self._fetch_run(first, last)
        finally:
            self._drop_writer()

    def _fetch_run(self, first: int, last: int) -> None:
        start = self._layout.offset(first)
        end = self._layout.offset(last) + self._layout.length(last)
        failures = 0
        while start < end:
            self._fetch.cancel.check()
            before = self._got_bytes
            try:
                self._read_range(start, end)
                return
            except UpstreamError as error:
                if error.kind in _LASTING:
                    raise
                failures = 0 if self._got_bytes > before else failures + 1
                if failures > len(RETRY_WAITS_S) or (error.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
                    raise
                self._fetch.cancel.pause(max(error.retry_after_s or 0.0, RETRY_WAITS_S[max(0, failures - 1)]))
            start = self._reached(first, last)

    def _reached(self, first: int, last: int) -> int:
        """Where to go on: inside the piece that was being received, or at the next one that is missing."""
        if self._writer is not None:
            return self._layout.offset(self._piece) + self._layout.length(self._piece) - self._writer.remaining_bytes
        missing = [piece for piece in range(first, last + 1) if self._wanted >> piece & 1]
        return self._layout.offset(missing[0]) if missing else self._layout.size_bytes

    def _read_range(self, start: int, end: int) -> None:
        whole = start == 0 and end == self._layout.size_bytes
        response = self._reader.open_blob(
            self._upstream,
            self._fetch.source.repository,
            self._blob.digest,
            start=start,
            end=None if whole else end,
            cancel=self._fetch.cancel,
        )
        with response:
            if response.size_bytes not in (None, self._layout.size_bytes):
                raise UpstreamError(
                    f"origin {self._upstream.host}: blob {self._blob.digest.short} has {response.size_bytes} bytes, "
                    f"not {self._layout.size_bytes}",
                    UpstreamKind.CONTENT,
                )
            self._take(response, start, end)

    def _take(self, response: BlobResponse, start: int, end: int) -> None:
        position = response.start
        while position < end:
            view = self._buffer[: min(len(self._buffer), self._step(position, start, end))]
            count = response.readinto(view)
            if not count:
                raise UpstreamError(f"origin {self._upstream.host}: body ended early", UpstreamKind.UNAVAILABLE)
            self._received(count)
            if position >= start:
                self._got_bytes += count
                self._put(position, view[:count])
            position += count

    def _step(self, position: int, start: int, end: int) -> int:
        """How far one read may go: not across the point where wanted bytes begin, nor a piece's end."""
        if position < start:
            return start - position
        piece = self._layout.piece_at(position)
        return min(end, self._layout.offset(piece) + self._layout.length(piece)) - position

    def _put(self, position: int, chunk: memoryview) -> None:
        piece = self._layout.piece_at(position)
        if self._writer is None:
            if self._fetch.stop.is_set():
                raise FetchCancelled
            self._piece = piece
            self._writer = self._blob.writer(piece, from_origin=True)
        self._writer.write(chunk)
        if not self._writer.remaining_bytes:
            writer, self._writer = self._writer, None
            writer.finish()
            self._wanted &= ~(1 << piece)
            self._fetch.piece_done(piece)
            if self._fetch.stop.is_set() and self._wanted:
                raise FetchCancelled

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
