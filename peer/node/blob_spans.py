"""Spans below a client's request: leases and pieces that bring its blob, and this node's own questions to an origin.

A transfer serves every client that reads its blob: it is told below the one that began to read first. What nobody here
reads has no spans.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proto.ids import short_peer
from proto.runtime.traces import Traces

if TYPE_CHECKING:
    from peer.downloader.contract import StartFetch
    from peer.transport.base import FetchOutcome
    from proto.ids import Digest
    from proto.runtime.traces import Span


class BlobSpans:
    """Safe from any thread."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.traces = traces or Traces()
        self._readers: dict[str, list[Span]] = {}

    def reading(self, digest: Digest, span: Span) -> None:
        """A client's request for the blob began; on the event loop."""
        self._readers.setdefault(str(digest), []).append(span)

    def read(self, digest: Digest, span: Span) -> None:
        """It is over; on the event loop."""
        spans = self._readers.get(str(digest), [])
        spans.remove(span)
        if not spans:
            self._readers.pop(str(digest), None)

    def parent(self, digest: Digest | str) -> Span | None:
        """The request that the work for this blob is told below; None: there is none."""
        spans = self._readers.get(str(digest))
        return next(iter(spans), None) if spans else None

    def fetched(self, command: StartFetch, begun_ns: int, outcome: FetchOutcome) -> None:
        """A transfer from another node is over: its lease, from when it came, and the piece on its way."""
        parent = self.parent(command.digest) if self.traces.on else None
        if parent is None:
            return
        source = short_peer(command.holder.peer)
        lease = self.traces.begin("lease", parent, ns=begun_ns, digest=str(command.digest), piece=command.piece)
        piece_ns = time.time_ns() - int((outcome.elapsed_s + outcome.answered_s) * 1e9)
        piece = self.traces.begin("piece", lease, ns=max(begun_ns, piece_ns), piece=command.piece, source=source)
        piece.end(outcome.reason, bytes=outcome.stored_bytes, answered_s=outcome.answered_s)
        lease.end(outcome.reason, source=source, waited_s=outcome.waited_s)

    def asked(self, digest: Digest, upstream: str, begun_ns: int, reason: str) -> None:
        """This node's own fetch from an origin is over."""
        parent = self.parent(digest) if self.traces.on else None
        if parent is not None:
            span = self.traces.begin("origin", parent, ns=begun_ns, digest=str(digest), upstream=upstream)
            span.end(reason)
