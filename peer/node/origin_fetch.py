"""This node's own fetches from an origin: missing pieces by byte ranges, in threads, straight into the store.

The downloader decides what to ask for and when, the range reader how. No byte passes the event loop.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peer.downloader.contract import UpstreamEnded, UpstreamPiece
from peer.node.blob_spans import BlobSpans
from peer.registry.base import NODE
from peer.registry.piece_cutter import PieceCutter
from peer.registry.queues import Work
from peer.registry.range_reader import RangeReader, ReadSettings
from peer.registry.retry import NODE_RETRY
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import LayercastError, LocalError, UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event, FetchUpstream
    from peer.registry.base import Caller
    from peer.registry.origins import Origins
    from peer.registry.range_reader import Range
    from peer.store.base import BlobHandle, Chunk

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    command: FetchUpstream
    blob: BlobHandle
    post: Callable[[Event], None]
    caller: Caller
    stop: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    started_ns: int = field(default_factory=time.time_ns)
    cancel: Cancellation = field(default_factory=Cancellation)


class UpstreamFetcher:
    """In the origins' queues, which join the threads. `received` counts payload bytes, from any thread."""

    def __init__(self, origins: Origins, received: Callable[[int], None], spans: BlobSpans | None = None) -> None:
        self._origins = origins
        self._spans = spans or BlobSpans()
        self._settings = ReadSettings(received, NODE_RETRY)
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()

    def start(
        self, command: FetchUpstream, blob: BlobHandle, post: Callable[[Event], None], caller: Caller = NODE
    ) -> None:
        """Begin, as this caller. `post` is called from a thread with each UpstreamPiece, and exactly once with
        UpstreamEnded.
        """
        fetch = _Running(command, blob, post, caller)
        with self._lock:
            self._running[command.fetch] = fetch
        self._origins.queues.submit(Work.FETCH, command.source.upstream, self._run, fetch)

    def stop(self, number: int) -> None:
        """End after the piece in hand, at once if nothing came yet; reason `cancelled`."""
        with self._lock:
            fetch = self._running.get(number)
        if fetch is not None:
            fetch.stop.set()
            if not fetch.begun:
                fetch.cancel.cancel()

    def close(self) -> None:
        """End all now."""
        with self._lock:
            running = list(self._running.values())
        for fetch in running:
            fetch.stop.set()
            fetch.cancel.cancel()

    def _run(self, fetch: _Running) -> None:
        reason, message, retry_after_s = "", "", 0.0
        try:
            self._fetch(fetch)
        except FetchCancelled:
            reason = "cancelled"
        except UpstreamError as error:
            reason, message, retry_after_s = error.kind.value, str(error), error.retry_after_s or 0.0
        except LocalError as error:
            reason, message = "local", str(error)
        except LayercastError as error:
            reason, message = UpstreamKind.UNAVAILABLE.value, str(error)
        except Exception:
            # A bug of ours. It is logged, but whoever waits for the outcome must get one.
            logger.exception("upstream_fetch_failed digest=%s", fetch.blob.digest.short)
            reason, message = "local", "internal error while fetching from upstream; see the log"
        with self._lock:
            del self._running[fetch.command.fetch]
        if message:
            logger.warning(
                "upstream_fetch digest=%s upstream=%s reason=%s %s",
                fetch.blob.digest.short, fetch.command.source.upstream, reason, message,
            )  # fmt: skip
        self._spans.asked(fetch.blob.digest, fetch.command.source.upstream, fetch.started_ns, reason)
        fetch.post(UpstreamEnded(fetch.command.fetch, reason, message, retry_after_s))

    def _fetch(self, fetch: _Running) -> None:
        """Fetch all pieces, from `first` on and then those before it. Raises what ends it early."""
        fetch.cancel.check()
        command, blob, layout = fetch.command, fetch.blob, fetch.blob.layout
        origin = self._origins.at(command.source.upstream)
        repository, size_bytes = command.source.repository, layout.size_bytes
        reader = RangeReader(
            origin, repository, blob.digest, size_bytes, self._settings, slices=True, caller=fetch.caller,
            manifest=command.source.manifest,
        )  # fmt: skip
        ahead = command.pieces >> command.first << command.first
        wanted: list[Range] = [*layout.byte_ranges(ahead), *layout.byte_ranges(command.pieces & ~ahead)]
        cutter = PieceCutter(blob, lambda piece, found: fetch.post(UpstreamPiece(command.fetch, piece, found)))

        def keep(offset: int, chunk: Chunk) -> None:
            fetch.begun = True
            if fetch.stop.is_set() and offset % layout.piece_size_bytes == 0:
                raise FetchCancelled
            cutter.write(offset, chunk)

        try:
            reader.read(wanted, self._origins.limits.paced(reader.host, keep), fetch.cancel)
        finally:
            cutter.close()
