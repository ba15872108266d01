"""Which sources give a blob to anyone: an anonymous question per (upstream, repository, digest), coalesced, remembered.

The question itself blocks and runs in a thread of its upstream's queue. Nothing here ever sees a credential. What an
origin said counts for `fresh_s` from when it was asked; a source that cannot be asked after that counts as public only
where the operator wants that, within `stale_s` of the last time it was found so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.registry.base import REFUSAL_REASONS, OtherSize
from peer.registry.queues import Work
from peer.transport.cancellation import FetchCancelled
from proto.bounded_dict import BoundedDict
from proto.errors import LocalError, UpstreamError, UpstreamKind
from proto.runtime.logs import LogLimit
from supernode.shares import is_over_share
from supernode.state.base import SavedPublic

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from peer.registry.queues import UpstreamQueues
    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source
    from supernode.state.thread import StateThread

    # Blocking: the blob's size as the origin tells it to anyone, None when it tells none. Raises UpstreamError,
    # LocalError.
    Head = Callable[[Source, Digest], int | None]

logger = logging.getLogger(__name__)

# Questions that may be on their way to one upstream. From half of them on one asker has its share, and so many in any
# case: nobody is refused for what others ask.
WAITING_MAX: Final = 2_000
WAITING_PER_ASKER_MIN: Final = 16
REMEMBERED_MAX: Final = 50_000
# A refusal is the answer to all questions within this time: 200 nodes ask at once, and clients try again.
REFUSED_S: Final = 5.0
# For so long a source that refused an anonymous question is not asked that again for each of its private blobs.
DENIED_S: Final = 60.0
# Who asks hears so much later that the origin is slow, in time for a client that waits 30 s for headers. The question
# goes on, and its answer is there for whoever asks again.
SLOW_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is empty for a public blob of `size_bytes`, else a BlobRefused reason with its line for the log.

    `retry_after_s`: the origin wants no questions about the blob for so long; 0 if it said nothing of the kind.
    """

    size_bytes: int
    reason: str = ""
    message: str = ""
    retry_after_s: float = 0.0
    # The source does not give it to anyone, but it may be shared among members whose clients it allows.
    private: bool = False
    # So long ago the origin was asked; infinite for what counts this once alone.
    age_s: float = 0.0

    @property
    def shared(self) -> bool:
        """Whether members may have the blob of one another."""
        return not self.reason


_Key = tuple["Source", "Digest"]


@dataclass(frozen=True, slots=True)
class _Known:
    """A source gives the blob to anyone. `asked_s`: when it was asked, by this process's clock."""

    saved: SavedPublic
    asked_s: float


@dataclass(eq=False, slots=True)
class _Question:
    """One that is on its way. `askers` wait for it, in their order; `turn` is what stands in its upstream's queue."""

    askers: dict[PeerId | None, None] = field(default_factory=dict)
    turn: Future[int | None] | None = None
    task: asyncio.Task[Verdict] = field(init=False)


class PublicAccess:
    """Lives on the event loop. close() it in the end; `queues` joins the threads."""

    def __init__(
        self,
        head: Head,
        state: StateThread,
        queues: UpstreamQueues,
        *,
        fresh_s: float,
        stale_s: float,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """After `fresh_s` a source is asked again. `unix_clock` is for what outlives the process: whoever sets the
        machine's clock extends nothing that this one was told.
        """
        self._head = head
        self._state = state
        self._queues = queues
        self._clock = clock
        self._unix_clock = unix_clock
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._slow_s = slow_s
        self._on_refused = on_refused
        self._known: BoundedDict[_Key, _Known] = BoundedDict(REMEMBERED_MAX)
        self._refused: BoundedDict[_Key, tuple[Verdict, float]] = BoundedDict(REMEMBERED_MAX)
        # Until when a repository gives nothing to anyone, neither blobs nor manifests.
        self._denied: BoundedDict[tuple[str, str], float] = BoundedDict(REMEMBERED_MAX)
        # Whoever announces made-up digests has as many lines.
        self._refusals = LogLimit()
        self._asking: dict[_Key, _Question] = {}
        # By upstream and by who asked first. Upstreams are those of the allow-list.
        self._on_their_way: defaultdict[str, Counter[PeerId | None]] = defaultdict(Counter)

    def _remembered(self, source: Source, digest: Digest) -> Verdict | None:
        """The verdict that is remembered, or None."""
        key = (source, digest)
        now = self._clock()
        verdict, until = self._refused.get(key, (None, 0.0))
        if verdict is not None and now < until:
            return dataclasses.replace(verdict, retry_after_s=until - now) if verdict.retry_after_s else verdict
        known = self._known.get(key)
        if known is not None and now - known.asked_s < self._fresh_s:
            return Verdict(known.saved.size_bytes, age_s=now - known.asked_s)
        return None

    async def check(self, source: Source, digest: Digest, asker: PeerId | None = None) -> Verdict:
        """Whether the source gives the blob to anyone. One question at a time for each; never raises for the origin.

        Who asks for much waits for itself: questions go to an origin in the askers' turns.
        """
        verdict = self._remembered(source, digest)
        if verdict is None:
            key = (source, digest)
            question = self._asking.get(key)
            if question is None:
                if self._is_crowded(source.upstream, asker):
                    return self._counted(Verdict(0, "limit", f"too many checks wait for origin {source.upstream}"))
                question = self._asking[key] = _Question()
                question.task = asyncio.create_task(self._ask(question, source, digest))
                question.task.add_done_callback(lambda _: self._answered(key, asker))
                self._on_their_way[source.upstream][asker] += 1
            self._also_ask(question, source.upstream, asker)
            if not (await asyncio.wait({question.task}, timeout=self._slow_s))[0]:
                message = f"origin {source.upstream} has not answered for {self._slow_s:.0f} s; ask again"
                return self._stale((source, digest), "slow") or self._counted(Verdict(0, "slow", message))
            verdict = question.task.result()
        return self._counted(verdict)

    def _also_ask(self, question: _Question, upstream: str, asker: PeerId | None) -> None:
        """It is asked in the turn of whoever waits for it and comes first."""
        if asker not in question.askers:
            question.askers[asker] = None
            if question.turn is not None:
                self._queues.also_ask(Work.CHECK, upstream, question.turn, asker)

    def _is_crowded(self, upstream: str, asker: PeerId | None) -> bool:
        """Whether this asker has as many questions on their way there as it may have."""
        askers = self._on_their_way[upstream]
        parties = len(askers) + (asker not in askers)
        return is_over_share(
            askers[asker], by_all=askers.total(), most=WAITING_MAX, parties=parties, least=WAITING_PER_ASKER_MIN
        )

    def _answered(self, key: _Key, asker: PeerId | None) -> None:
        self._asking.pop(key, None)
        askers = self._on_their_way[key[0].upstream]
        askers[asker] -= 1
        if not askers[asker]:
            del askers[asker]

    def _counted(self, verdict: Verdict) -> Verdict:
        if verdict.reason:
            self._on_refused(verdict.reason)
        return verdict

    def denies(self, source: Source) -> bool:
        """Whether the source refused an anonymous question about some blob just now: it gives none to anyone."""
        return self._clock() < self._denied.get((source.upstream, source.repository), 0.0)

    def forget(self, source: Source, digest: Digest) -> None:
        """The source sent wrong content: ask it again before it counts as public."""
        self._known.pop((source, digest), None)
        self._state.forget_public(source, digest)

    def contradicted(self, source: Source, digest: Digest, error: UpstreamError) -> None:
        """Asked for the blob itself, the source refused it or sends another size: that counts, not its earlier word."""
        if isinstance(error, OtherSize):
            self._remember((source, digest), error.size_bytes, self._clock())
        else:
            self._failed((source, digest), error, None)

    async def recall(self, source: Source, digest: Digest) -> Verdict | None:
        """What the source said last, however long ago: enough for who has the blob to say so, and for nobody to read
        it. None where nothing is remembered.
        """
        key = (source, digest)
        if key not in self._known:
            await self._load(key)
        known = self._known.get(key)
        return None if known is None else Verdict(known.saved.size_bytes, age_s=float("inf"))

    async def close(self) -> None:
        """Stop waiting; questions on their way end with their own timeouts or when their connections are closed."""
        tasks = [question.task for question in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, question: _Question, source: Source, digest: Digest) -> Verdict:
        key = (source, digest)
        if key not in self._known:
            await self._load(key)
            verdict = self._remembered(source, digest)
            if verdict is not None:
                return verdict
        asked_s = self._clock()
        try:
            first, *others = question.askers
            question.turn = self._queues.submit(Work.CHECK, source.upstream, self._head, source, digest, asker=first)
            for other in others:
                self._queues.also_ask(Work.CHECK, source.upstream, question.turn, other)
            size_bytes = await asyncio.wrap_future(question.turn)
        except UpstreamError as error:
            return self._failed(key, error, self._stale(key, error.kind.value))
        except LocalError as error:
            logger.error("public_check_impossible upstream=%s error=%s", source.upstream, error)
            message = f"the supernode cannot ask origin {source.upstream}: its operator must act"
            return self._refuse(key, Verdict(0, "unavailable", message), REFUSED_S)
        except FetchCancelled:
            return Verdict(0, "unavailable", "the supernode is stopping")
        if size_bytes is None:
            message = f"origin {source.upstream} does not say how large blob {digest.short} is"
            return self._refuse(key, Verdict(0, "unavailable", message), REFUSED_S)
        # Of one that is slow, whoever comes again shall find the answer.
        asked_s = max(asked_s, self._clock() - self._slow_s)
        self._remember(key, size_bytes, asked_s)
        return Verdict(size_bytes, age_s=self._clock() - asked_s)

    def _failed(self, key: _Key, error: UpstreamError, stale: Verdict | None) -> Verdict:
        source, digest = key
        settled = error.kind in (UpstreamKind.DENIED, UpstreamKind.UNKNOWN)
        if settled:
            self.forget(source, digest)
            self._note_denial(source, error)
        elif stale is not None:
            return stale
        retry_after_s = error.retry_after_s or 0.0
        verdict = Verdict(0, REFUSAL_REASONS[error.kind], str(error), retry_after_s)
        return self._refuse(key, verdict, retry_after_s or REFUSED_S)

    def _stale(self, key: _Key, reason: str) -> Verdict | None:
        """What the origin said last, while it cannot be asked, where the operator lets that count; None else."""
        known, (source, digest) = self._known.get(key), key
        if known is None or not 0 <= self._unix_clock() - known.saved.checked_unix_s < self._stale_s:
            return None
        logger.info("public_check_stale digest=%s upstream=%s reason=%s", digest.short, source.upstream, reason)
        return Verdict(known.saved.size_bytes, age_s=float("inf"))

    def _note_denial(self, source: Source, error: UpstreamError) -> None:
        if error.kind is UpstreamKind.DENIED:
            self._denied[source.upstream, source.repository] = self._clock() + DENIED_S

    def _refuse(self, key: _Key, verdict: Verdict, lasts_s: float) -> Verdict:
        source, digest = key
        self._refusals.log(
            logger, logging.INFO, "blob_refused digest=%s upstream=%s reason=%s %s",
            digest.short, source.upstream, verdict.reason, verdict.message,
        )  # fmt: skip
        self._refused[key] = (verdict, self._clock() + lasts_s)
        return verdict

    async def _load(self, key: _Key) -> None:
        saved = await self._state.load_public(*key)
        if saved is not None and key not in self._known:
            age_s = self._unix_clock() - saved.checked_unix_s
            self._known[key] = _Known(saved, self._clock() - age_s if age_s >= 0 else float("-inf"))

    def _remember(self, key: _Key, size_bytes: int, asked_s: float) -> None:
        saved = SavedPublic(size_bytes, self._unix_clock() - (self._clock() - asked_s))
        self._refused.pop(key, None)
        self._known[key] = _Known(saved, asked_s)
        self._state.save_public(*key, saved.size_bytes, saved.checked_unix_s)
