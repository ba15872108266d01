"""Which private blobs may be shared, and how: by the operator's login where there is one, else by what members bring.

A member says that its origin allows one of its clients to read the blob; each node asks its origin for each of its own
clients, for the blob or for a manifest that lists it. So nothing here permits anybody to read: it is found out whether
the blob is there, and who fetches it. That it is there, one member finds out for all.
Lives on the event loop; questions run in the queues of their upstreams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from peer.registry.queues import Work
from peer.transport.cancellation import FetchCancelled
from proto.bounded_dict import BoundedDict
from proto.errors import LocalError, UpstreamError, UpstreamKind
from proto.wire.messages import PROVEN
from supernode.origin.public_access import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.queues import UpstreamQueues
    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source

logger = logging.getLogger(__name__)

REMEMBERED_MAX: Final = 50_000
# Members that a manifest lists a blob to wait so long for the one that asks the origin; then they ask by themselves.
PROOF_S: Final = 2.0
# And so long what it found counts for them: they pull at once. With the time that it had to ask that is far less than
# an origin's word counts.
PROVEN_S: Final = 10.0
UNPROVEN: Final = "unproven"

_Key = tuple["Source", "Digest"]


class PrivateAccess:
    """`head` is blocking: the blob's size as the origin tells it to the operator's login, None where it tells none; it
    raises UpstreamError and LocalError. `has_login` says whether there is one for an upstream. An answer of either kind
    counts for `fresh_s` from when it was asked for.
    """

    def __init__(
        self,
        head: Callable[[Source, Digest], int | None],
        has_login: Callable[[str], bool],
        queues: UpstreamQueues,
        fresh_s: float,
        clock: Callable[[], float] = time.monotonic,
        proof_s: float = PROOF_S,
    ) -> None:
        self._head = head
        self.has_login = has_login
        self._queues = queues
        self._fresh_s = fresh_s
        self._clock = clock
        # The size, or None where the login does not help; until when.
        self._known: BoundedDict[_Key, tuple[int | None, float]] = BoundedDict(REMEMBERED_MAX)
        self._asking: dict[_Key, asyncio.Task[int | None]] = {}
        # By upstream, which are those of the allow-list: what its origin, asked last with the login, refused it for.
        self.login_problems: dict[str, str] = {}
        # The size that an origin told a member, until when; and what a member was sent to ask just now.
        self._proof_s = proof_s
        self._proven: BoundedDict[_Key, tuple[int, float]] = BoundedDict(REMEMBERED_MAX)
        self._proving: dict[_Key, tuple[asyncio.Event, PeerId | None]] = {}

    async def check(
        self, source: Source, digest: Digest, allowed: int, size_bytes: int, asker: PeerId | None = None
    ) -> Verdict:
        """Whether the blob can be shared privately. `allowed` and `size_bytes` are a member's word (Announce).

        `allowed` 0: nobody's word counts but that of the origin to the operator's login. Never raises for the
        origin.
        """
        if self.has_login(source.upstream):
            told = await self._ask(source, digest, asker)
            if told is not None:
                return Verdict(told, private=True)
        if not allowed:
            return Verdict(0, "private", f"{source.upstream} does not give it to the supernode's login")
        key = (source, digest)
        if allowed >= PROVEN:
            self._prove(key, size_bytes, asker)
        elif not await self._proven_by_others(key, size_bytes, asker):
            return Verdict(0, UNPROVEN, "no origin was asked for this blob there yet")
        return Verdict(size_bytes, private=True)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._asking.values():
            task.cancel()

    # --- what one member found out, for the others ----------------------------------------------------------------

    def _prove(self, key: _Key, size_bytes: int, asker: PeerId | None) -> None:
        """By the word of the one that was sent to ask. What another knows, it may know from long ago."""
        proving, sent = self._proving.get(key, (None, None))
        if proving is not None and sent == asker:
            self._proven[key] = (size_bytes, self._clock() + min(PROVEN_S, self._fresh_s))
            self._wake(key, proving)

    async def _proven_by_others(self, key: _Key, size_bytes: int, asker: PeerId | None) -> bool:
        """Whether the origin answered another member for the blob. The first who is told no asks it; others wait."""
        if not self._is_proven(key, size_bytes):
            proving, _ = self._proving.get(key, (None, None))
            if proving is None:
                proving = asyncio.Event()
                self._proving[key] = proving, asker
                asyncio.get_running_loop().call_later(self._proof_s, self._wake, key, proving)
                return False
            await proving.wait()
        return self._is_proven(key, size_bytes)

    def _is_proven(self, key: _Key, size_bytes: int) -> bool:
        found_bytes, until_s = self._proven.get(key, (-1, 0.0))
        return found_bytes == size_bytes and self._clock() < until_s

    def _wake(self, key: _Key, proving: asyncio.Event) -> None:
        proving.set()
        if self._proving.get(key, (None, None))[0] is proving:
            del self._proving[key]

    # --- the operator's login --------------------------------------------------------------------------------------

    async def _ask(self, source: Source, digest: Digest, asker: PeerId | None) -> int | None:
        key = (source, digest)
        size_bytes, until_s = self._known.get(key, (None, 0.0))
        if self._clock() < until_s:
            return size_bytes
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._answer(key, asker))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _answer(self, key: _Key, asker: PeerId | None) -> int | None:
        source, digest = key
        size_bytes: int | None = None
        asked_s = self._clock()
        try:
            question = self._queues.submit(Work.CHECK, source.upstream, self._head, source, digest, asker=asker)
            size_bytes = await asyncio.wrap_future(question)
            self.login_problems.pop(source.upstream, None)
        except UpstreamError as error:
            if error.kind is UpstreamKind.DENIED:
                self.login_problems[source.upstream] = f"the login for {source.upstream} may not read: {error}"
            logger.warning("login_does_not_read digest=%s upstream=%s %s", digest.short, source.upstream, error)
        except LocalError as error:
            logger.error("credentials_unusable %s", error)
        except FetchCancelled:
            pass
        self._known[key] = (size_bytes, asked_s + self._fresh_s)
        return size_bytes
