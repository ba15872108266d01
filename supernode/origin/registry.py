"""Registries as the supernode's origin: which blobs they give to anyone, and fetching those, each byte once.

Blocking, called from threads. Sources are tried one after the other; what one of them gave is not asked of the
next. No client's credential is ever here.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from proto.errors import RemoteError, UpstreamError, UpstreamKind
from supernode.origin.byte_ranges import RangeBook, WindowSettings
from supernode.origin.fetch import BlobFetch, FetchParts, RetrySettings
from supernode.origin.piece_cutter import Splitter
from supernode.origin.rate_limiter import RateGate

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.reader import BlobAccess, RegistryReader
    from peer.store.base import BlobHandle
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable
    from proto.wire.messages import Source
    from supernode.origin.fetch import Sink

# A Retry-After longer than this is reported instead of waited for.
RATE_LIMIT_PATIENCE_S = 20.0

# Of several sources' errors the one is reported that leaves the most hope.
_BY_HOPE = (
    UpstreamKind.RATE_LIMITED,
    UpstreamKind.UNAVAILABLE,
    UpstreamKind.CONTENT,
    UpstreamKind.DENIED,
    UpstreamKind.UNKNOWN,
)


class RegistryOrigin:
    """What the seed and the check for public blobs ask. Safe to use from many threads."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        reader: RegistryReader,
        *,
        on_received: Callable[[int], None] = lambda count: None,
        windows: WindowSettings | None = None,
        retry: RetrySettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`on_received` counts payload bytes, from any thread; requests are counted by the reader's own callback."""
        self._upstreams = upstreams
        self._reader = reader
        self._parts = FetchParts(
            reader=reader,
            gate=RateGate(RATE_LIMIT_PATIENCE_S, clock),
            clock=clock,
            jitter=jitter,
            received=on_received,
            windows=windows or WindowSettings(),
            retry=retry or RetrySettings(),
        )

    def head(self, source: Source, digest: Digest, cancel: Cancellation | None = None) -> int | None:
        """The size of a blob that the source gives to anyone; None where it gives it and tells no size.

        Raises UpstreamError: denied or unknown where it does not, else why it cannot be known now.
        """
        upstream = self._lookup(source)
        work = cancel or self._reader.closing
        self._parts.gate.wait(upstream.host, work)
        access = self._ask_public(upstream, source, digest, work)
        if not access.allowed:
            kind = UpstreamKind.UNKNOWN if access.status in (404, 410) else UpstreamKind.DENIED
            raise UpstreamError(
                f"origin {upstream.host}: blob {digest.short} of {source.repository} is not given to anyone:"
                f" {access.status}",
                kind,
                status=access.status,
            )
        return access.size_bytes

    def fetch(
        self,
        handle: BlobHandle,
        sources: tuple[Source, ...],
        pieces: int,
        on_piece: Callable[[int, bytes], None],
        cancel: Cancellation,
    ) -> None:
        """Store the pieces of the mask; `on_piece(piece, hash)` after each, from any thread.

        Raises UpstreamError, LocalError or FetchCancelled; what was stored by then was reported.
        """
        splitter = Splitter(handle, on_piece)
        try:
            missing = handle.layout.byte_ranges(pieces)
            self.fetch_ranges(sources, handle.digest, handle.layout.size_bytes, missing, splitter.write, cancel)
        finally:
            splitter.close()

    def fetch_ranges(
        self,
        sources: tuple[Source, ...],
        digest: Digest,
        size_bytes: int,
        missing: list[tuple[int, int]],
        sink: Sink,
        cancel: Cancellation,
    ) -> None:
        """Bring half-open byte ranges of a blob of known size to the sink; each byte goes there once.

        Raises UpstreamError once every source failed, FetchCancelled, and what the sink raises.
        """
        book = RangeBook(missing, self._parts.windows.align_bytes)
        failures: list[UpstreamError] = []
        sink_errors: list[Exception] = []

        def guarded(offset: int, view: memoryview) -> None:
            try:
                sink(offset, view)
            except Exception as error:
                sink_errors.append(error)
                raise

        for source in sources:
            if not book.pending_bytes:
                return
            try:
                upstream = self._lookup(source)
                BlobFetch(self._parts, upstream, source.repository, digest, size_bytes, book, guarded).run(cancel)
            except UpstreamError as error:
                if sink_errors:
                    raise
                failures.append(error)
        if book.pending_bytes:
            failures.sort(key=lambda error: _BY_HOPE.index(error.kind))
            if not failures:
                raise UpstreamError(f"blob {digest.short}: no source is known", UpstreamKind.UNKNOWN)
            raise failures[0]

    def _ask_public(self, upstream: UpstreamConfig, source: Source, digest: Digest, cancel: Cancellation) -> BlobAccess:
        try:
            return self._reader.is_public(upstream, source.repository, digest, cancel=cancel)
        except UpstreamError as error:
            if error.kind is UpstreamKind.RATE_LIMITED and error.retry_after_s is not None:
                self._parts.gate.close(upstream.host, error.retry_after_s)
            raise

    def _lookup(self, source: Source) -> UpstreamConfig:
        try:
            return self._upstreams().lookup(source.upstream)
        except RemoteError as error:
            raise UpstreamError(str(error), UpstreamKind.DENIED) from error
