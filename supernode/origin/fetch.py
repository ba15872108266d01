"""Fetches one blob from one source over as many parallel streams as help, each with windows of bytes to read.

Threads, no asyncio. The calling thread runs the main stream, which alone retries; further streams give back what they
could not get and end. Bytes go to the sink as they come, in order within each request, never twice.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from peer.transport.cancellation import FetchCancelled
from proto.errors import LayercastError, UpstreamError, UpstreamKind
from supernode.origin.byte_ranges import Ramp

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.range_reader import Range, RangeReader, Sink
    from peer.store.base import Chunk
    from peer.transport.cancellation import Cancellation
    from supernode.origin.byte_ranges import RangeBook, WindowSettings


class _Stream:
    """One thread that reads. `number` 0 is the main stream, which alone retries."""

    def __init__(self, number: int, cancel: Cancellation) -> None:
        self.number = number
        self.cancel = cancel
        # Its first window decides whether it stays. `joined`: the first bytes of that window arrived.
        self.on_trial = number > 0
        self.joined = False


class BlobFetch:
    """Fetches `book`'s bytes; what is left in the book after an error is still missing. run() once.

    `beside` are bytes of use that are not asked for: they are taken where an origin sends the whole blob for a range,
    or it would send it again for the next one.
    """

    def __init__(
        self,
        reader: RangeReader,
        book: RangeBook,
        sink: Sink,
        windows: WindowSettings,
        beside: Callable[[], list[tuple[int, int]]] = list,
    ) -> None:
        self._reader = reader
        self._book = book
        self._sink = sink
        self._beside = beside
        # Guards the book, the ramp, the retry, the counts below and the list of threads.
        self._lock = threading.Lock()
        self._ramp = Ramp(windows)
        self._retry = reader.new_retry()
        self._active = 0
        self._threads: list[threading.Thread] = []
        self._ranges_proven = False
        # What the sink raised. Its bytes are lost, so the whole fetch ends.
        self.sink_error: LayercastError | None = None

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
        if self.sink_error is not None:
            raise self.sink_error

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
                self._reader.pause(error, self._retry, cancel)

    def _further_stream(self, number: int, cancel: Cancellation) -> None:
        stream = _Stream(number, cancel)
        try:
            while (window := self._take(stream)) is not None:
                self._read_window(stream, window)
                stream.on_trial = False
        except (LayercastError, FetchCancelled):
            with self._lock:
                # Many origins limit the connections at a time. The other streams go on.
                self._ramp.settle(self._active)
            if self.sink_error is not None:
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
            thread = threading.Thread(target=self._further_stream, args=(number, cancel), name=f"origin-{number}")
            self._threads.append(thread)
            thread.start()

    # --- one request -------------------------------------------------------------------------------------------

    def _read_window(self, stream: _Stream, window: tuple[int, int]) -> None:
        """Ask for a window and pass it on. What did not arrive is in the book again afterwards."""
        wanted: list[Range] = [window]
        whole = False

        def claim() -> list[Range]:
            nonlocal whole
            whole = True
            return self._claim_all(stream)

        def passed(offset: int, chunk: Chunk) -> None:
            # Not earlier: the size must have been found right.
            self._ranges_proven = self._ranges_proven or not whole
            self._deliver(stream, offset, chunk)

        with self._lock:
            self._active += 1
        try:
            self._reader.read_once(wanted, passed, stream.cancel, claim=claim)
        finally:
            with self._lock:
                self._active -= 1
                for start, end in wanted:
                    assert end is not None
                    self._book.give_back(start, end)

    def _claim_all(self, stream: _Stream) -> list[Range]:
        """The whole blob comes in one body: take all that is missing from it. Bytes that are held are skipped.

        Raises UpstreamError where other streams read beside: they got ranges from this origin, this one did not.
        """
        with self._lock:
            if stream.number > 0 or self._active > 1:
                raise UpstreamError("the origin sent a whole blob for a range", UpstreamKind.UNAVAILABLE)
            self._ramp.settle(1)
            return [*self._book.take_all(), *self._beside()]

    def _deliver(self, stream: _Stream, offset: int, chunk: Chunk) -> None:
        try:
            self._sink(offset, chunk)
        except LayercastError as error:
            with self._lock:
                self.sink_error = self.sink_error or error
            raise
        now = time.monotonic()
        with self._lock:
            self._retry.received(len(chunk), now)
            if stream.on_trial and not stream.joined:
                stream.joined = True
                self._ramp.joined(now)
            self._ramp.delivered(len(chunk), now)
            self._start_further_streams(stream.cancel)
