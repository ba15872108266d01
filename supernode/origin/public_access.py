"""Which sources give a blob to anyone: an anonymous HEAD per (upstream, repository, digest), coalesced and remembered.

The HEAD itself blocks and runs in threads. Nothing here ever sees a credential; a source that cannot be asked now
counts as public only within `stale_s` of the last time it was found so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.base import REFUSAL_REASONS
from peer.transport.cancellation import FetchCancelled
from proto.errors import LocalError, UpstreamError, UpstreamKind
from supernode.state.base import SavedPublic

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import Digest
    from proto.wire.messages import Source
    from supernode.state.thread import StateThread

    # Blocking: the blob's size as an anonymous HEAD says it, None when it says none. Raises UpstreamError, LocalError.
    Head = Callable[[Source, Digest], int | None]

logger = logging.getLogger(__name__)

# Checks at a time. An origin that is asked more often at once would limit us anyway.
THREADS: Final = 16
WAITING_MAX: Final = 10_000
REMEMBERED_MAX: Final = 50_000
# After FRESH_S a public source is asked again. If its origin cannot answer, it counts as public until STALE_S.
FRESH_S: Final = 3600.0
STALE_S: Final = 24 * 3600.0
# A refusal is the answer to all questions within this time: 200 nodes ask at once, and clients try again.
REFUSED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is empty for a public blob of `size_bytes`, else a BlobRefused reason with its line for the log."""

    size_bytes: int
    reason: str = ""
    message: str = ""

    @property
    def public(self) -> bool:
        """Whether the source gives the blob to anyone."""
        return not self.reason


_Key = tuple["Source", "Digest"]


class PublicAccess:
    """Lives on the event loop. close() and then join() in the end."""

    def __init__(
        self,
        head: Head,
        state: StateThread,
        *,
        clock: Callable[[], float] = time.time,
        fresh_s: float = FRESH_S,
        stale_s: float = STALE_S,
    ) -> None:
        """`clock` is Unix seconds: what is remembered outlives the process."""
        self._head = head
        self._state = state
        self._clock = clock
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._executor = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="public")
        self._known: OrderedDict[_Key, SavedPublic] = OrderedDict()
        self._refused: OrderedDict[_Key, tuple[Verdict, float]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[Verdict]] = {}

    def _remembered(self, source: Source, digest: Digest) -> Verdict | None:
        """The verdict that is remembered, or None."""
        key = (source, digest)
        now = self._clock()
        saved = self._known.get(key)
        if saved is not None and 0 <= now - saved.checked_unix_s < self._fresh_s:
            return Verdict(saved.size_bytes)
        refused = self._refused.get(key)
        if refused is not None and now < refused[1]:
            return refused[0]
        return None

    async def check(self, source: Source, digest: Digest) -> Verdict:
        """Whether the source gives the blob to anyone. One HEAD at a time for each; never raises for the origin."""
        verdict = self._remembered(source, digest)
        if verdict is not None:
            return verdict
        key = (source, digest)
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= WAITING_MAX:
                return Verdict(0, "limit", f"{WAITING_MAX} checks are waiting for origins")
            task = self._asking[key] = asyncio.create_task(self._ask(source, digest))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def forget(self, source: Source, digest: Digest) -> None:
        """The source sent wrong content: ask it again before it counts as public."""
        self._known.pop((source, digest), None)
        self._state.forget_public(source, digest)

    async def close(self) -> None:
        """Stop waiting; HEADs on their way end with their own timeouts or when their connections are closed."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Blocking: wait for the threads, after close()."""
        self._executor.shutdown(wait=True)

    async def _ask(self, source: Source, digest: Digest) -> Verdict:
        key = (source, digest)
        saved = self._known.get(key)
        if saved is None:
            saved = await self._state.load_public(source, digest)
            if saved is not None:
                self._remember(key, saved)
                if 0 <= self._clock() - saved.checked_unix_s < self._fresh_s:
                    return Verdict(saved.size_bytes)
        try:
            size_bytes = await asyncio.get_running_loop().run_in_executor(self._executor, self._head, source, digest)
        except UpstreamError as error:
            return self._failed(key, saved, error)
        except LocalError as error:
            logger.error("public_check_impossible upstream=%s error=%s", source.upstream, error)
            message = f"the supernode cannot ask origin {source.upstream}: its operator must act"
            return self._refuse(key, Verdict(0, "unavailable", message), REFUSED_S)
        except FetchCancelled:
            return Verdict(0, "unavailable", "the supernode is stopping")
        if size_bytes is None:
            message = f"origin {source.upstream} does not say how large blob {digest.short} is"
            return self._refuse(key, Verdict(0, "unavailable", message), REFUSED_S)
        now = self._clock()
        self._remember(key, SavedPublic(size_bytes, now))
        self._state.save_public(source, digest, size_bytes, now)
        return Verdict(size_bytes)

    def _failed(self, key: _Key, saved: SavedPublic | None, error: UpstreamError) -> Verdict:
        source, digest = key
        settled = error.kind in (UpstreamKind.DENIED, UpstreamKind.UNKNOWN)
        if settled:
            self.forget(source, digest)
        elif saved is not None and 0 <= self._clock() - saved.checked_unix_s < self._stale_s:
            logger.info(
                "public_check_stale digest=%s upstream=%s reason=%s", digest.short, source.upstream, error.kind.value
            )
            return Verdict(saved.size_bytes)
        return self._refuse(key, Verdict(0, REFUSAL_REASONS[error.kind], str(error)), error.retry_after_s or REFUSED_S)

    def _refuse(self, key: _Key, verdict: Verdict, lasts_s: float) -> Verdict:
        source, digest = key
        logger.info("blob_refused digest=%s upstream=%s reason=%s", digest.short, source.upstream, verdict.reason)
        self._refused[key] = (verdict, self._clock() + lasts_s)
        self._refused.move_to_end(key)
        if len(self._refused) > REMEMBERED_MAX:
            self._refused.popitem(last=False)
        return verdict

    def _remember(self, key: _Key, saved: SavedPublic) -> None:
        self._refused.pop(key, None)
        self._known[key] = saved
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
