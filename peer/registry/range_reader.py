"""Reads byte ranges of one blob from one origin, in order, each byte once. Every reader of origins uses this loop.

A body that is cut is resumed at the byte reached. If the origin answers a range with the whole blob, that one body
serves all ranges that are wanted. Blocking. Bytes go to a sink as they arrive, and the sink decides where they go.
Which ranges to ask for in parallel is decided in layers above (supernode.origin.byte_ranges).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.registry.base import NODE, CutOff, OtherSize
from peer.registry.retry import RETRIED, Retry, RetrySettings
from proto.errors import UpstreamError, UpstreamKind
from proto.pieces import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import BlobBody, Caller, Origin
    from peer.store.base import Chunk
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest

    # Bytes [start, end); None: to the end of a blob whose size nobody told.
    Range = tuple[int, int | None]
    # (offset, bytes): in order within each range. May raise LayercastError, and FetchCancelled to end it all.
    Sink = Callable[[int, Chunk], None]

# The most that goes to the sink at a time. Chunks end at its multiples, so the end of a piece is never held back.
CHUNK_BYTES: Final = 256 * KIB


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What several reads share. `received` counts payload bytes, from any thread."""

    received: Callable[[int], None] = lambda count: None
    retry: RetrySettings = field(default_factory=RetrySettings)


class RangeReader:
    """One blob, for one caller. Safe to use from many threads.

    `size_bytes` None: not known yet; what the first body says then holds for those that follow.
    """

    def __init__(
        self,
        origin: Origin,
        repository: str,
        digest: Digest,
        size_bytes: int | None,
        settings: ReadSettings,
        caller: Caller = NODE,
        *,
        slices: bool = False,
        manifest: bool = False,
    ) -> None:
        """`slices`: the sinks also take slices of files, which some origins give. `manifest`: see Origin."""
        self._origin = origin
        self._repository = repository
        self._digest = digest
        self._size_bytes = size_bytes
        self._settings = settings
        self._caller = caller
        self._slices = slices
        self._manifest = manifest

    @property
    def host(self) -> str:
        """The upstream's name."""
        return self._origin.host

    def open(self, start: int, end: int | None, cancel: Cancellation) -> BlobBody:
        """One request for bytes [start, end). Raises UpstreamError and FetchCancelled."""
        whole = start == 0 and end == self._size_bytes
        last = None if whole else end
        return self._origin.open_range(
            self._repository, self._digest, start, last, self._caller, cancel, manifest=self._manifest
        )

    def size(self, cancel: Cancellation) -> int | None:
        """The size that the origin tells this caller. Raises UpstreamError and FetchCancelled."""
        return self._origin.stat(self._repository, self._digest, self._caller, cancel, manifest=self._manifest)

    def new_retry(self) -> Retry:
        """The patience of one fetch."""
        return Retry(self._settings.retry, random.random, time.monotonic())

    def read(self, wanted: list[Range], sink: Sink, cancel: Cancellation, body: BlobBody | None = None) -> None:
        """Bring all of `wanted` to the sink, in this order, with as many requests as that takes.

        `body` is the answer to the first of them, if that was asked already. Raises UpstreamError once the origin is
        given up, FetchCancelled, and what the sink raises; `wanted` then keeps what did not come.
        """
        retry = self.new_retry()

        def passed(offset: int, chunk: Chunk) -> None:
            sink(offset, chunk)
            retry.received(len(chunk), time.monotonic())

        while wanted:
            try:
                self.read_once(wanted, passed, cancel, body)
            except UpstreamError as error:
                self.pause(error, retry, cancel)
            body = None

    def read_once(
        self,
        wanted: list[Range],
        sink: Sink,
        cancel: Cancellation,
        body: BlobBody | None = None,
        claim: Callable[[], list[Range]] = list,
    ) -> None:
        """One request, for the first range of `wanted`; what came is taken out of that list.

        If the whole blob comes instead, all of `wanted` comes with it, and what `claim` adds.
        """
        if body is None:
            body = self.open(*wanted[0], cancel)
        with body:
            self._check_size(body)
            if not body.is_range:
                wanted += claim()
                wanted.sort()
            self._pass_on(body, wanted, sink)

    def pause(self, error: UpstreamError, retry: Retry, cancel: Cancellation) -> None:
        """Wait until the origin may be asked again after this error; raise it when the origin is given up."""
        if error.kind not in RETRIED:
            raise error
        if isinstance(error, CutOff):
            retry.begin_anew(time.monotonic())
        delay_s = retry.delay_s(time.monotonic(), error.retry_after_s)
        if delay_s is None:
            raise error
        cancel.pause(delay_s)

    def _check_size(self, body: BlobBody) -> None:
        if self._size_bytes is None:
            self._size_bytes = body.size_bytes
        if body.size_bytes is not None and body.size_bytes != self._size_bytes:
            what = f"is {body.size_bytes} bytes, {self._size_bytes} were announced"
            raise OtherSize(f"origin {self._origin.host}: blob {self._digest.short} {what}", body.size_bytes)

    def _pass_on(self, body: BlobBody, wanted: list[Range], sink: Sink) -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while wanted:
            start, end = wanted[0] = self._bounded(wanted[0])
            if start == end:
                del wanted[0]
                continue
            if start < body.position or (body.end is not None and start >= body.end):
                return  # the origin cut the range short, as it may, or the next range is another request's
            while body.position < start:
                if not self._receive(body, buffer[: start - body.position]):
                    raise self._too_short(body)
            limit = (start // CHUNK_BYTES + 1) * CHUNK_BYTES
            chunk = buffer[: (limit if end is None else min(end, limit)) - start]
            if not self._fill(body, chunk, wanted, sink):
                if end is not None:
                    raise self._too_short(body)
                del wanted[0]
        if body.position in (body.end, self._size_bytes) and body.readinto(buffer[:1]):
            raise self._error(f"has more than its {body.position} bytes", UpstreamKind.CONTENT)

    def _bounded(self, wanted: Range) -> Range:
        """The size may have become known since the range was asked for."""
        return wanted[0], self._size_bytes if wanted[1] is None else wanted[1]

    def _fill(self, body: BlobBody, chunk: memoryview, wanted: list[Range], sink: Sink) -> int:
        """Fill the chunk as far as the origin sends, take it out of `wanted`, and give it to the sink.

        What came before an error is passed on before the error is raised.
        """
        in_file = body.take_slice(len(chunk)) if self._slices else None
        if in_file is not None:
            self._settings.received(len(in_file))
            self._hand_on(wanted, in_file, sink)
            return len(in_file)
        count = 0
        try:
            while count < len(chunk) and (received := self._receive(body, chunk[count:])):
                count += received
        finally:
            if count:
                self._hand_on(wanted, chunk[:count], sink)
        return count

    def _hand_on(self, wanted: list[Range], chunk: Chunk, sink: Sink) -> None:
        start, end = wanted[0]
        wanted[0] = (start + len(chunk), end)
        if wanted[0][0] == end:
            del wanted[0]
        sink(start, chunk)

    def _receive(self, body: BlobBody, view: memoryview) -> int:
        count = body.readinto(view)
        self._settings.received(count)
        return count

    def _too_short(self, body: BlobBody) -> UpstreamError:
        return self._error(f"ended at byte {body.position} of {self._size_bytes}", UpstreamKind.UNAVAILABLE)

    def _error(self, what: str, kind: UpstreamKind) -> UpstreamError:
        return UpstreamError(f"origin {self._origin.host}: blob {self._digest.short} {what}", kind)
