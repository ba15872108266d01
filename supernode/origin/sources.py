"""Asks origins for the supernode: which blobs they give to anyone, and those blobs' bytes, each once.

Blocking, called from threads. Sources are tried one after the other, and the next is asked only for what is still
missing. No client's credential is ever here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.registry.base import ANYONE, NODE, OPERATOR, OtherSize
from peer.registry.piece_cutter import PieceCutter
from peer.registry.range_reader import RangeReader, ReadSettings
from proto.errors import UpstreamError, UpstreamKind
from supernode.origin.byte_ranges import RangeBook, WindowSettings
from supernode.origin.fetch import BlobFetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Caller
    from peer.registry.origins import Origins
    from peer.registry.range_reader import Sink
    from peer.store.base import BlobHandle, Chunk
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.wire.messages import Source

    OnContradiction = Callable[[Source, Digest, UpstreamError], None]

_REFUSALS = (UpstreamKind.DENIED, UpstreamKind.UNKNOWN, UpstreamKind.RATE_LIMITED)
# If all sources fail, the first of these kinds is reported: the one that leaves the most hope.
_BY_HOPE = (
    UpstreamKind.RATE_LIMITED,
    UpstreamKind.UNAVAILABLE,
    UpstreamKind.CONTENT,
    UpstreamKind.DENIED,
    UpstreamKind.UNKNOWN,
)


def is_refusal(error: UpstreamError) -> bool:
    """Whether the origin has decided, so that nobody else need try: what it says counts for every node."""
    return isinstance(error, OtherSize) or error.kind in _REFUSALS


class OriginFetcher:
    """For the seed, and for the check of public access. Safe to use from many threads."""

    def __init__(
        self,
        origins: Origins,
        settings: ReadSettings | None = None,
        windows: WindowSettings | None = None,
        on_contradiction: OnContradiction = lambda source, digest, error: None,
    ) -> None:
        """`on_contradiction` hears, from any thread, of a source that did not give what it had said that it gives."""
        self._origins = origins
        self._settings = settings or ReadSettings()
        self._windows = windows or WindowSettings()
        self._on_contradiction = on_contradiction

    def public_size(self, source: Source, digest: Digest, cancel: Cancellation) -> int | None:
        """The size of a blob that the source gives to anyone; None if it tells no size.

        Raises UpstreamError: denied or unknown if it does not, else why that cannot be known now.
        """
        return self._stat(source, digest, ANYONE, cancel)

    def private_size(self, source: Source, digest: Digest, cancel: Cancellation) -> int | None:
        """The same of one that it gives to the operator's login. Raises LocalError, too: there is none to be had."""
        return self._stat(source, digest, OPERATOR, cancel)

    def _stat(self, source: Source, digest: Digest, caller: Caller, cancel: Cancellation) -> int | None:
        origin = self._origins.at(source.upstream)
        return origin.stat(source.repository, digest, caller, cancel, manifest=source.manifest)

    def fetch(
        self,
        handle: BlobHandle,
        sources: tuple[Source, ...],
        pieces: int,
        on_piece: Callable[[int, bytes], None],
        cancel: Cancellation,
        on_bytes: Callable[[], None] = lambda: None,
        *,
        private: bool = False,
    ) -> None:
        """Store the pieces of the mask. From any thread: `on_piece(piece, hash)` after each, `on_bytes()` as some come.

        `private`: with the operator's login.

        Raises UpstreamError, LocalError or FetchCancelled; what was stored by then was reported.
        """
        cutter = PieceCutter(handle, on_piece)

        def keep(offset: int, chunk: Chunk) -> None:
            on_bytes()
            cutter.write(offset, chunk)

        try:
            layout = handle.layout
            missing, caller = layout.byte_ranges(pieces), OPERATOR if private else NODE

            def beside() -> list[tuple[int, int]]:
                return layout.byte_ranges(layout.full_mask & ~(pieces | handle.held))

            self.fetch_ranges(sources, handle.digest, layout.size_bytes, missing, keep, cancel, caller, beside)
        finally:
            cutter.close()

    def fetch_ranges(
        self,
        sources: tuple[Source, ...],
        digest: Digest,
        size_bytes: int,
        missing: list[tuple[int, int]],
        sink: Sink,
        cancel: Cancellation,
        caller: Caller = NODE,
        beside: Callable[[], list[tuple[int, int]]] = list,
    ) -> None:
        """Bring half-open byte ranges of a blob of known size to the sink, each byte once. `beside`: see BlobFetch.

        Raises UpstreamError once every source failed, FetchCancelled, and what the sink raises.
        """
        book = RangeBook(missing, self._windows.align_bytes)
        failures: list[UpstreamError] = []
        for source in sources:
            if not book.pending_bytes:
                return
            try:
                origin = self._origins.at(source.upstream)
            except UpstreamError as error:
                failures.append(error)
                continue
            reader = RangeReader(
                origin, source.repository, digest, size_bytes, self._settings, caller,
                slices=True, manifest=source.manifest,
            )  # fmt: skip
            fetch = BlobFetch(reader, book, self._origins.limits.paced(reader.host, sink), self._windows, beside)
            try:
                fetch.run(cancel)
            except UpstreamError as error:
                if fetch.sink_error is not None:
                    raise
                failures.append(error)
                if is_refusal(error) and caller is NODE:
                    self._on_contradiction(source, digest, error)
                if error.retry_after_s:
                    break  # it wants to be left alone, also in its other repositories
        if book.pending_bytes:
            failures.sort(key=lambda error: _BY_HOPE.index(error.kind))
            if not failures:
                raise UpstreamError(f"blob {digest.short}: no source is known", UpstreamKind.UNKNOWN)
            raise failures[0]
