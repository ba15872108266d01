"""The one thread that touches the state store, as the event loop uses it: reads are awaited, writes are queued.

Writes never block and never fail their caller, but for those of jobs and events, which are awaited: one that was
accepted is not lost. The operations are those of state.base.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from proto.runtime.logs import LogLimit
from supernode.state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source
    from supernode.state.base import NewEvent, SavedEvent, SavedJob, SavedPublic, SavedSwarm, State

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Above this many waiting writes further ones are dropped: a store that hangs must not fill our memory.
WAITING_WRITES_MAX: Final = 50_000


class StateThread:
    """A read comes after every write queued before it; it answers None, with a log line, where the store fails."""

    def __init__(self, state: State) -> None:
        """The store is this thread's from now on, and closed by close()."""
        self._state = state
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._lock = threading.Lock()
        self._waiting = 0
        self._dropped = 0
        self._failures = LogLimit(lines_max=1)

    async def load_swarm(self, digest: Digest) -> SavedSwarm | None:
        return await self._read(self._state.load_swarm, digest)

    async def load_public(self, source: Source, digest: Digest) -> SavedPublic | None:
        return await self._read(self._state.load_public, source, digest)

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None:
        self._write(self._state.save_swarm, digest, size_bytes, piece_size_bytes, now_unix_s)

    def add_source(self, digest: Digest, source: Source) -> None:
        self._write(self._state.add_source, digest, source)

    def add_private(self, digest: Digest, upstream: str) -> None:
        self._write(self._state.add_private, digest, upstream)

    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None:
        self._write(self._state.add_hashes, digest, added)

    def vouch(self, digest: Digest, hashes: bytes) -> None:
        self._write(self._state.vouch, digest, hashes)

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        self._write(self._state.add_holder, digest, peer)

    def remove_holder(self, digest: Digest, peer: PeerId) -> None:
        self._write(self._state.remove_holder, digest, peer)

    def forget_swarm(self, digest: Digest) -> None:
        self._write(self._state.forget_swarm, digest)

    def save_public(self, source: Source, digest: Digest, size_bytes: int, now_unix_s: float) -> None:
        self._write(self._state.save_public, source, digest, size_bytes, now_unix_s)

    def forget_public(self, source: Source, digest: Digest) -> None:
        self._write(self._state.forget_public, source, digest)

    async def load_jobs(self) -> list[SavedJob]:
        """Raises StateError: who goes on without them would do again, or forget, what is there."""
        return await asyncio.wrap_future(self._executor.submit(self._state.load_jobs))

    async def save_job(self, job: SavedJob) -> None:
        """Return once it is on the disk. Raises StateError."""
        await asyncio.wrap_future(self._executor.submit(self._state.save_job, job))

    async def forget_job(self, number: int) -> None:
        """The same."""
        await asyncio.wrap_future(self._executor.submit(self._state.forget_job, number))

    async def add_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Return once they are on the disk. Raises StateError."""
        return await asyncio.wrap_future(self._executor.submit(self._state.add_events, events))

    async def save_event(self, event: SavedEvent) -> None:
        """The same."""
        await asyncio.wrap_future(self._executor.submit(self._state.save_event, event))

    async def end_event(self, number: int) -> None:
        """The same."""
        await asyncio.wrap_future(self._executor.submit(self._state.end_event, number))

    async def load_events(self) -> list[SavedEvent]:
        """Raises StateError."""
        return await asyncio.wrap_future(self._executor.submit(self._state.load_events))

    async def save_tags(self, repository: str, tags: Mapping[str, str]) -> None:
        """Raises StateError."""
        await asyncio.wrap_future(self._executor.submit(self._state.save_tags, repository, tags))

    async def load_tags(self, repository: str) -> dict[str, str]:
        """Raises StateError."""
        return await asyncio.wrap_future(self._executor.submit(self._state.load_tags, repository))

    async def load_repositories(self) -> list[str]:
        """Raises StateError."""
        return await asyncio.wrap_future(self._executor.submit(self._state.load_repositories))

    def close(self) -> None:
        """Blocking: finish what is queued, then close the store."""
        self._executor.shutdown(wait=True)
        self._state.close()

    async def _read(self, operation: Callable[P, R | None], /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        def run() -> R | None:
            try:
                return operation(*args, **kwargs)
            except StateError as error:
                logger.error("state_read_failed operation=%s error=%s", operation.__name__, error)
                return None

        return await asyncio.wrap_future(self._executor.submit(run))

    def _write(self, operation: Callable[P, None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        with self._lock:
            if self._waiting >= WAITING_WRITES_MAX:
                self._dropped += 1
                if self._dropped & (self._dropped - 1) == 0:
                    logger.error("state_write_dropped total=%d: the disk of --data-dir does not keep up", self._dropped)
                return
            self._waiting += 1
        self._executor.submit(self._run, operation, *args, **kwargs)

    def _run(self, operation: Callable[P, None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            operation(*args, **kwargs)
        except StateError as error:
            # Each announcement writes: one line a minute says it.
            text = "state_write_failed operation=%s error=%s: look after the disk of --data-dir"
            self._failures.log(logger, logging.ERROR, text, operation.__name__, error)
        finally:
            with self._lock:
                self._waiting -= 1
