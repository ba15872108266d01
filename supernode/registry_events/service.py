"""All of registry events in one: made, started and closed by the composition root, used by the HTTP API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from supernode.registry_events.processing import EventProcessing
from supernode.registry_events.tag_scan import TagScan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from peer.registry.origins import Origins
    from supernode.jobs.job import Job
    from supernode.jobs.runner import JobRunner
    from supernode.registry_events.rules import Rule
    from supernode.registry_events.senders import Senders
    from supernode.state.thread import StateThread

# Between two scans for events that may have been lost: who sends nonsense causes no more.
LOST_AGAIN_S: Final = 300.0
# Of requests that are read at a time.
BODIES_MAX: Final = 32
# Names that running registries gave themselves: replicas, and those that were started again.
_INSTANCES_MAX: Final = 1000


class RegistryEvents:
    """start() once the jobs have, then close(). What is a function here may change while the process runs."""

    def __init__(
        self,
        state: StateThread,
        jobs: JobRunner,
        origins: Origins,
        *,
        rules: Callable[[], Sequence[Rule]],
        senders: Callable[[], Senders],
        is_allowed: Callable[[str], bool],
        has_login: Callable[[str], bool],
        count: Callable[[str, int], None],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float],
        scan_every_s: float,
        first_scan_s: float,
    ) -> None:
        """`count` is told what became of how many events; `is_allowed`: whether the registry is on the allow-list."""
        self.rules = rules
        self.senders = senders
        self.is_allowed = is_allowed
        self.count = count
        self.processing = EventProcessing(state, jobs, rules, is_allowed, on_fatal, count=count, clock=clock)
        self.scan = TagScan(
            state, origins, has_login, rules, self.processing.receive, on_fatal, clock,
            every_s=scan_every_s, first_s=first_scan_s,
        )  # fmt: skip
        # Each may have a mebibyte.
        self.bodies = asyncio.Semaphore(BODIES_MAX)
        self._clock = clock
        self._scan_later: asyncio.TimerHandle | None = None
        self._scans = scan_every_s > 0.0
        self._instances: BoundedDict[str, None] = BoundedDict(_INSTANCES_MAX)

    async def start(self) -> None:
        """Go on with what was saved. Raises StateError."""
        await self.processing.start()
        self.scan.start()

    async def close(self) -> None:
        """What waits goes on at the next start."""
        if self._scan_later is not None:
            self._scan_later.cancel()
        await self.scan.close()
        await self.processing.close()

    def job_ended(self, job: Job) -> None:
        """A job is over."""
        self.processing.job_ended(job)

    def seen(self, instances: Iterable[str]) -> None:
        """Running registries told something: one that was not there before has lost what another had in its queue."""
        new = [name for name in instances if name not in self._instances]
        if new and self._instances:
            self.may_be_lost()
        for name in new:
            self._instances[name] = None

    def may_be_lost(self) -> None:
        """Events did not come: tags are scanned soon, unless that is never done."""
        if not self._scans or self._scan_later is not None:
            return
        last = self.scan.last
        ago_s = LOST_AGAIN_S if last is None else self._clock() - last.ended_unix_s
        wait_s = min(LOST_AGAIN_S, max(0.0, LOST_AGAIN_S - ago_s))
        self._scan_later = asyncio.get_running_loop().call_later(wait_s, self._scan_now)

    def _scan_now(self) -> None:
        self._scan_later = None
        self.scan.want()
