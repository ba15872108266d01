"""One blob from one source: each missing byte asked for once, over as many streams as pay off. Threads, no asyncio.

The calling thread runs the main stream, which alone retries; further streams give back what they could not get
and end. Bytes go to the sink as they come, in order within each request, never twice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peer.transport.cancellation import FetchCancelled
from proto.errors import LayercastError, UpstreamError, UpstreamKind
from proto.pieces import KIB
from supernode.origin.byte_ranges import Ramp, WindowSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.blob_response import BlobResponse
    from peer.registry.reader import RegistryReader
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig
    from supernode.origin.byte_ranges import RangeBook
    from supernode.origin.rate_limiter import RateGate

    # (offset, bytes): called from several threads, in order within each request. May raise LayercastError.
    Sink = Callable[[int, memoryview], None]

# What goes to the sink at once. Chunks end at its multiples, so that the end of every piece is handed on at once.
CHUNK_BYTES = 256 * KIB


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """When an origin in trouble is asked again, and when it is given up."""

    first_delay_s: float = 0.25
    delay_max_s: float = 5.0
    # Given up after this many failures and this much time without progress: both, so that neither a refused
    # connection (fails at once) nor a silent one (fails after 10 s) decides by itself.
    failures_min: int = 3
    without_progress_s: float = 5.0
    # Fewer bytes than this between two failures are no progress.
    progress_bytes: int = 64 * KIB


@dataclass(frozen=True, slots=True)
class FetchParts:
    """What every fetch shares. `jitter` gives 0 <= x < 1; `received` counts payload bytes, from any thread."""

    reader: RegistryReader
    gate: RateGate
    clock: Callable[[], float]
    jitter: Callable[[], float]
    received: Callable[[int], None]
    windows: WindowSettings = field(default_factory=WindowSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)


class _Stream:
    """One thread that reads. `number` 0 is the main stream, which alone retries."""

    def __init__(self, number: int, cancel: Cancellation) -> None:
        self.number = number
        self.cancel = cancel
        self.buffer = memoryview(bytearray(CHUNK_BYTES))
        # Its first window decides whether it stays; `joined` once that window's first bytes came.
        self.on_trial = number > 0
        self.joined = False


class BlobFetch:
    """Fetches `book`'s bytes; what is left in the book after an error is still missing. run() once."""

    def __init__(
        self,
        parts: FetchParts,
        upstream: UpstreamConfig,
        repository: str,
        digest: Digest,
        size_bytes: int,
        book: RangeBook,
        sink: Sink,
    ) -> None:
        self._parts = parts
        self._upstream = upstream
        self._repository = repository
        self._digest = digest
        self._size_bytes = size_bytes
        self._book = book
        self._sink = sink
        # Guards the book, the ramp, the counts below and the list of threads.
        self._lock = threading.Lock()
        self._ramp = Ramp(parts.windows)
        self._active = 0
        self._threads: list[threading.Thread] = []
        self._ranges_proven = False
        # What the sink raised: bytes were lost that nobody will ask for again, so everything ends.
        self._sink_error: LayercastError | None = None
        self._failures = 0
        self._received_bytes = 0
        self._received_at_failure = 0
        self._progress_s = parts.clock()

    def run(self, cancel: Cancellation) -> None:
        """Return when every byte went to the sink. Raises UpstreamError, FetchCancelled, and what the sink raises."""
        with cancel.child() as everything:
            try:
                while self._book_is_open():
                    self._main_stream(everything)
                    self._join()
                    self._check_sink()
            except BaseException:
                everything.cancel()
                self._join()
                self._check_sink()
                raise

    def _book_is_open(self) -> bool:
        with self._lock:
            return self._book.pending_bytes > 0

    def _check_sink(self) -> None:
        if self._sink_error is not None:
            raise self._sink_error

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    # --- streams -----------------------------------------------------------------------------------------------

    def _main_stream(self, cancel: Cancellation) -> None:
        stream = _Stream(0, cancel)
        while (window := self._take(stream)) is not None:
            try:
                self._read_window(stream, window)
            except UpstreamError as error:
                self._check_sink()
                cancel.pause(self._delay_after(error))

    def _further_stream(self, number: int, cancel: Cancellation) -> None:
        stream = _Stream(number, cancel)
        try:
            while (window := self._take(stream)) is not None:
                self._read_window(stream, window)
                stream.on_trial = False
        except (LayercastError, FetchCancelled):
            with self._lock:
                # Many origins bear only so many connections at a time: the others go on.
                self._ramp.settle(self._active)
            if self._sink_error is not None:
                cancel.cancel()

    def _take(self, stream: _Stream) -> tuple[int, int] | None:
        with self._lock:
            if stream.number >= self._ramp.target:
                return None
            wanted = self._ramp.window_bytes(
                self._book.pending_bytes, first=not self._ranges_proven, trial=stream.on_trial
            )
            return self._book.take(wanted)

    def _start_further_streams(self, cancel: Cancellation) -> None:
        """Called with the lock held."""
        number = len(self._threads) + 1
        if self._ranges_proven and self._book.pending_bytes and number < self._ramp.target:
            name = f"origin-{self._digest.short}-{number}"
            thread = threading.Thread(target=self._further_stream, args=(number, cancel), name=name)
            self._threads.append(thread)
            thread.start()

    # --- one request -------------------------------------------------------------------------------------------

    def _read_window(self, stream: _Stream, window: tuple[int, int]) -> None:
        """Ask for a window and pass it on; whatever did not come is back in the book afterwards."""
        wanted = [window]
        with self._lock:
            self._active += 1
        try:
            self._parts.gate.wait(self._upstream.host, stream.cancel)
            with self._open(window, stream.cancel) as response:
                self._check_size(response)
                if response.status == 200:
                    wanted += self._claim_all(stream)
                    wanted.sort()
                self._ranges_proven = self._ranges_proven or response.status == 206
                self._pass_on(stream, response, wanted)
        finally:
            with self._lock:
                self._active -= 1
                for start, end in wanted:
                    self._book.give_back(start, end)

    def _open(self, window: tuple[int, int], cancel: Cancellation) -> BlobResponse:
        try:
            return self._parts.reader.open_blob(
                self._upstream, self._repository, self._digest, start=window[0], end=window[1], cancel=cancel
            )
        except UpstreamError as error:
            if error.kind is UpstreamKind.RATE_LIMITED and error.retry_after_s is not None:
                self._parts.gate.close(self._upstream.host, error.retry_after_s)
            raise

    def _check_size(self, response: BlobResponse) -> None:
        if response.size_bytes not in (None, self._size_bytes):
            raise UpstreamError(
                f"origin {self._upstream.host}: blob {self._digest.short} is {response.size_bytes} bytes,"
                f" {self._size_bytes} were announced",
                UpstreamKind.CONTENT,
            )

    def _claim_all(self, stream: _Stream) -> list[tuple[int, int]]:
        """The whole blob is coming in one body: take from it all that is missing. Bytes held already are skipped.

        Raises UpstreamError where other streams read beside: they got ranges from this origin, this one did not.
        """
        with self._lock:
            if stream.number > 0 or self._active > 1:
                raise UpstreamError(
                    f"origin {self._upstream.host} sent a whole blob for a range", UpstreamKind.UNAVAILABLE
                )
            self._ramp.settle(1)
            return self._book.take_all()

    def _pass_on(self, stream: _Stream, response: BlobResponse, wanted: list[tuple[int, int]]) -> None:
        """Hand the wanted bytes of a response to the sink; `wanted` keeps what is still to come, in order."""
        buffer = stream.buffer
        while wanted:
            start, end = wanted[0]
            if response.end is not None and start >= response.end:
                return  # the origin cut the range short, as it may
            while response.position < start:
                if not response.readinto(buffer[: min(len(buffer), start - response.position)]):
                    raise self._too_short(response)
            limit = min(end, (start // CHUNK_BYTES + 1) * CHUNK_BYTES)
            if not self._receive(stream, response, buffer[: limit - start], wanted):
                raise self._too_short(response)
        if response.position in (response.end, self._size_bytes) and response.readinto(buffer[:1]):
            raise UpstreamError(
                f"origin {self._upstream.host}: more than the {self._size_bytes} bytes of blob {self._digest.short}",
                UpstreamKind.CONTENT,
            )

    def _receive(
        self, stream: _Stream, response: BlobResponse, chunk: memoryview, wanted: list[tuple[int, int]]
    ) -> int:
        """Fill the chunk as far as the origin sends, give it to the sink, and take it out of `wanted`.

        What came before an error is passed on before the error is raised.
        """
        start, end = wanted[0]
        count = 0
        try:
            while count < len(chunk) and (received := response.readinto(chunk[count:])):
                count += received
        finally:
            if count:
                wanted[0] = (start + count, end)
                if wanted[0][0] == end:
                    wanted.pop(0)
                self._deliver(stream, start, chunk[:count])
        return count

    def _deliver(self, stream: _Stream, offset: int, view: memoryview) -> None:
        try:
            self._sink(offset, view)
        except LayercastError as error:
            with self._lock:
                self._sink_error = self._sink_error or error
            raise
        self._parts.received(len(view))
        now = self._parts.clock()
        with self._lock:
            self._received_bytes += len(view)
            self._progress_s = now
            if stream.on_trial and not stream.joined:
                stream.joined = True
                self._ramp.joined(now)
            self._ramp.delivered(len(view), now)
            self._start_further_streams(stream.cancel)

    def _too_short(self, response: BlobResponse) -> UpstreamError:
        return UpstreamError(
            f"origin {self._upstream.host}: blob {self._digest.short} ended at {response.position}"
            f" of {self._size_bytes} bytes",
            UpstreamKind.UNAVAILABLE,
        )

    # --- trouble -----------------------------------------------------------------------------------------------

    def _delay_after(self, error: UpstreamError) -> float:
        """Seconds until the next try, or raise the error: this source is given up."""
        if error.kind not in (UpstreamKind.UNAVAILABLE, UpstreamKind.RATE_LIMITED):
            raise error
        if (error.retry_after_s or 0.0) > self._parts.gate.patience_s:
            raise error
        retry = self._parts.retry
        with self._lock:
            progress = self._received_bytes - self._received_at_failure
            self._received_at_failure = self._received_bytes
            quiet_s = self._parts.clock() - self._progress_s
        self._failures = 1 if progress >= retry.progress_bytes else self._failures + 1
        if self._failures >= retry.failures_min and quiet_s >= retry.without_progress_s:
            raise error
        delay_s = min(retry.delay_max_s, retry.first_delay_s * 2.0 ** (self._failures - 1))
        return delay_s * (0.5 + self._parts.jitter() / 2)
