"""Asks registries what their tags name, and tells of those that changed without an event: a registry's queue is lost
when it restarts, and Harbor gives up after three tries.

Of a repository that it sees for the first time it only learns what is there: old images are no news. It decides nothing
about jobs; what it finds goes the way of every event.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.base import NODE, OPERATOR
from peer.registry.queues import Work
from peer.transport.cancellation import Cancellation
from proto.errors import LayercastError, UpstreamError, UpstreamKind
from supernode.registry_events.notice import Notice
from supernode.registry_events.processing import QueueFull
from supernode.registry_events.rules import is_pattern, rule_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from peer.registry.base import Caller
    from peer.registry.origins import Origins
    from supernode.registry_events.processing import Received
    from supernode.registry_events.rules import Rule
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# Looked at in one scan: each tag is one HEAD.
REPOSITORIES_MAX: Final = 1000
TAGS_MAX: Final = 1000
LISTED_MAX: Final = 100_000
# That a repository was seen is kept beside its tags, under the name of none.
_SEEN: Final = ""
# A registry that has just restarted; many begin at once.
SOON_S: Final = 5.0
JITTER: Final = 0.1


@dataclass(slots=True)
class ScanResult:
    """Of the newest scan; `problems` by repository."""

    ended_unix_s: float
    repositories: int
    found: int
    problems: dict[str, str]


class TagScan:
    """start(), then close(). `told` is EventProcessing.receive."""

    def __init__(
        self,
        state: StateThread,
        origins: Origins,
        has_login: Callable[[str], bool],
        rules: Callable[[], Sequence[Rule]],
        told: Callable[[Sequence[Notice]], Awaitable[Received]],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float],
        *,
        every_s: float,
        first_s: float,
        soon_s: float = SOON_S,
    ) -> None:
        """It begins `first_s` after the start, then every so many seconds; 0: only when it is asked to."""
        self._state = state
        self._origins = origins
        self._has_login = has_login
        self._rules = rules
        self._told = told
        self._on_fatal = on_fatal
        self._clock = clock
        self._every_s = every_s
        self._first_s = first_s
        self._soon_s = soon_s
        self._wanted = asyncio.Event()
        self._cancel = Cancellation()
        self._task: asyncio.Task[None] | None = None
        self.last: ScanResult | None = None
        self.running = False

    def start(self) -> None:
        """Scan from now on."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._run_ended)

    async def close(self) -> None:
        """End the one that goes on."""
        self._cancel.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def want(self) -> None:
        """Scan soon: events may have been lost."""
        self._wanted.set()

    async def _run(self) -> None:
        wait_s: float | None = self._first_s if self._every_s else None
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
                await asyncio.sleep(self._soon_s)
            except TimeoutError:
                pass
            self._wanted.clear()
            self.running = True
            try:
                self.last = await self._scan()
            finally:
                self.running = False
            wait_s = self._every_s * (1.0 + JITTER * random.random()) if self._every_s else None

    async def _scan(self) -> ScanResult:
        result = ScanResult(0.0, 0, 0, {})
        limited: set[str] = set()
        for repository in await self._repositories(result):
            host = repository.partition("/")[0]
            if host in limited:
                continue
            try:
                result.found += await self._scan_repository(repository)
                result.repositories += 1
            except LayercastError as error:
                result.problems[repository] = str(error)
                if isinstance(error, UpstreamError) and error.kind is UpstreamKind.RATE_LIMITED:
                    limited.add(host)
            except QueueFull:
                result.problems[repository] = "too many events wait: it is looked at in the next scan"
        result.ended_unix_s = self._clock()
        for repository, problem in list(result.problems.items())[:10]:
            logger.warning("tag_scan_failed repository=%s %s", repository, problem)
        logger.info("tag_scan_ended repositories=%d found=%d", result.repositories, result.found)
        return result

    async def _repositories(self, result: ScanResult) -> list[str]:
        """Those that rules name, and those that events told of where a rule has a pattern."""
        patterns = [pattern for rule in self._rules() for pattern in rule.repositories]
        named = dict.fromkeys(pattern for pattern in patterns if not is_pattern(pattern))
        if len(named) < len(patterns):
            try:
                known = await self._state.load_repositories()
            except LayercastError as error:
                result.problems["*"] = str(error)
                known = []
            named |= dict.fromkeys(name for name in known if any(rule.has(name) for rule in self._rules()))
        return list(named)[:REPOSITORIES_MAX]

    async def _scan_repository(self, repository: str) -> int:
        """How many of its tags changed. Raises LayercastError and QueueFull."""
        host, _, name = repository.partition("/")
        known = await self._state.load_tags(repository)
        # At the registry's own queue, as one asker among others.
        asked = self._origins.queues.submit(Work.CHECK, host, self._look, host, name, repository, asker="tag scan")
        present = await asyncio.wrap_future(asked)
        if _SEEN not in known:
            new = {tag: digest for tag, digest in present.items() if tag not in known}
            await self._state.save_tags(repository, {**new, _SEEN: ""})
            present = {tag: digest for tag, digest in present.items() if tag in known}
        changed = [
            # No other scan of this second tells of it: the state store knows what was told by then.
            Notice(f"scan {self._clock()} {repository}:{tag} {digest}", repository, tag, digest)
            for tag, digest in present.items()
            if known.get(tag) != digest
        ]
        return (await self._told(changed)).queued if changed else 0

    def _look(self, host: str, name: str, repository: str) -> dict[str, str]:
        """In a thread: what the tags that rules mean name now. Raises UpstreamError, LocalError and FetchCancelled."""
        origin, rules = self._origins.at(host), self._rules()
        caller: Caller = OPERATOR if self._has_login(host) else NODE
        try:
            present = origin.tags(name, LISTED_MAX, caller, self._cancel)
        except UpstreamError as error:
            if error.kind is not UpstreamKind.UNKNOWN:
                raise
            # Nothing was pushed there yet.
            present = []
        tags = [tag for tag in present if rule_of(rules, repository, tag) is not None]
        if len(tags) > TAGS_MAX:
            text = "tag_scan_limited repository=%s: of %d tags that rules mean the last %d are looked at"
            logger.warning(text, repository, len(tags), TAGS_MAX)
        found: dict[str, str] = {}
        # By their names the newest come last, mostly.
        for tag in tags[-TAGS_MAX:]:
            try:
                found[tag] = str(origin.tag_digest(name, tag, caller, self._cancel))
            except UpstreamError as error:
                # It was deleted meanwhile.
                if error.kind is not UpstreamKind.UNKNOWN:
                    raise
        return found

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)
