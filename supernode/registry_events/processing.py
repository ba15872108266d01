"""Carries out what becomes of registry events: saves them, has jobs made of them, and learns how those end.

Lives on the event loop. Which tags are meant the rules say, what becomes of an event the queue decides. Nothing that an
event says is believed: its job asks the registry what the tag names, with the operator's login.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.runtime.logs import LogLimit
from supernode.jobs.job import JobSpec
from supernode.jobs.runner import JobsFull
from supernode.registry_events.event import EventState, event_of, load_event, new_event
from supernode.registry_events.queue import EventQueue, job_for
from supernode.registry_events.rules import Rule, rule_of
from supernode.state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from supernode.jobs.job import Job
    from supernode.jobs.runner import JobRunner
    from supernode.registry_events.event import Event
    from supernode.registry_events.notice import Notice
    from supernode.state.base import SavedEvent
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# Before the next try where the state store or the jobs took nothing.
PAUSE_S: Final = 1.0


class QueueFull(Exception):
    """No further event is taken before some are done with."""


@dataclass(frozen=True, slots=True)
class Received:
    """What became of notices: those that are saved now, those that came before, and those that no rule means."""

    queued: int = 0
    repeated: int = 0
    unmatched: int = 0


class EventProcessing:
    """start(), then close(). `rules` and `is_allowed` (a registry's name) are asked anew each time."""

    def __init__(
        self,
        state: StateThread,
        jobs: JobRunner,
        rules: Callable[[], Sequence[Rule]],
        is_allowed: Callable[[str], bool],
        on_fatal: Callable[[BaseException], None],
        *,
        count: Callable[[str, int], None] = lambda result, number: None,
        clock: Callable[[], float] = time.time,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`count` is told what became of how many events."""
        self._state = state
        self._jobs = jobs
        self._rules = rules
        self._is_allowed = is_allowed
        self._on_fatal = on_fatal
        self._count = count
        self._clock = clock
        self._pause_s = pause_s
        self.queue = EventQueue()
        self._ended: list[int] = []
        self._wake = asyncio.Event()
        self._troubles = LogLimit(lines_max=1)
        self._task: asyncio.Task[None] | None = None
        self._started = False

    async def start(self) -> None:
        """Go on with what was saved; the jobs have started. Raises StateError."""
        saved = [event for event in map(_loaded, await self._state.load_events()) if event is not None]
        self.queue = EventQueue(saved)
        self._ended = [number for number in self.queue.jobs() if not _goes_on(self._jobs.job(number))]
        self._started = True
        self._wake.set()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._run_ended)

    async def close(self) -> None:
        """What waits goes on at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- who tells ---------------------------------------------------------------------------------------------------

    async def receive(self, notices: Sequence[Notice]) -> Received:
        """Return once those that are meant are saved. Raises QueueFull and StateError."""
        meant = [notice for notice in notices if self._is_meant(notice)]
        if not self.queue.has_room(len(meant)):
            self._count("refused", len(meant))
            raise QueueFull
        now = self._clock()
        numbers = await self._state.add_events([new_event(notice, now) for notice in meant]) if meant else []
        for number, notice in zip(numbers, meant, strict=True):
            if number:
                self.queue.add(event_of(number, notice, now))
        self._wake.set()
        repeated = numbers.count(0)
        received = Received(len(meant) - repeated, repeated, len(notices) - len(meant))
        for result in ("queued", "repeated", "unmatched"):
            self._count(result, getattr(received, result))
        return received

    def _is_meant(self, notice: Notice) -> bool:
        if not self._is_allowed(notice.repository.partition("/")[0]):
            return False
        return notice.by_policy or rule_of(self._rules(), notice.repository, notice.tag) is not None

    # --- who looks after it ------------------------------------------------------------------------------------------

    async def again(self, numbers: Iterable[int] | None = None) -> int:
        """These of the dead once more; how many there were. Raises StateError."""
        chosen = self.queue.again(numbers)
        self._wake.set()
        for event in chosen:
            await self._state.save_event(event.saved())
        return len(chosen)

    async def drop(self, numbers: Iterable[int] | None = None) -> int:
        """The same, and they are done with. Raises StateError."""
        chosen = self.queue.drop(numbers)
        for event in chosen:
            await self._state.end_event(event.number)
        return len(chosen)

    def job_ended(self, job: Job) -> None:
        """One of any cause."""
        if self._started:
            self._ended.append(job.number)
            self._wake.set()

    # --- what is done -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except StateError as error:
                text = "events_not_saved %s: look after the disk of --data-dir"
                self._troubles.log(logger, logging.ERROR, text, error)
            except JobsFull:
                text = "events_wait: as many jobs are open as may be; cancel some, or wait"
                self._troubles.log(logger, logging.WARNING, text)
            else:
                continue
            await asyncio.sleep(self._pause_s)
            self._wake.set()

    async def _work(self) -> None:
        """Raises StateError and JobsFull."""
        while self._ended or self.queue.next() is not None:
            while self._ended:
                await self._end(self._ended[0])
                self._ended.pop(0)
            event = self.queue.next()
            if event is not None:
                await self._begin(event)

    async def _end(self, number: int) -> None:
        """Of a job that is over: its events are done with, or dead. Raises StateError; then it is called again."""
        job = self._jobs.job(number)
        events = self.queue.of_job(number)
        has_failed = job is not None and job.state == "failed"
        for event in events:
            if not has_failed:
                await self._state.end_event(event.number)
        done, dead = self.queue.job_ended(number, None if job is None else job.state, "" if job is None else job.error)
        for event in dead:
            logger.warning("event_dead event=%d image=%s job=%d %s", event.number, event.image, number, event.error)
            await self._state.save_event(event.saved())
        for event in done if has_failed else ():
            logger.warning("event_dropped event=%d image=%s: too many are dead", event.number, event.image)
            await self._state.end_event(event.number)
        if events:
            self._count("failed" if has_failed else "done", len(events))

    async def _begin(self, event: Event) -> None:
        """Have a job made of it, once. Raises StateError and JobsFull."""
        rule = rule_of(self._rules(), event.repository, event.tag)
        if rule is None and not event.by_policy:
            await self._state.end_event(event.number)
            self.queue.ended(event.number)
            self._count("unmatched", 1)
            return
        spec = spec_of(event.image, rule, event.cause)
        job = job_for(event.cause, lambda job: _same(job.spec, spec), self._jobs.jobs) or await self._jobs.submit(spec)
        # Should the process end here, the job is found again by its cause.
        self.queue.begun(event, job.number)
        await self._state.save_event(event.saved())
        if job.is_over:
            self.job_ended(job)

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)


def spec_of(image: str, rule: Rule | None, cause: str, to: str = "all") -> JobSpec:
    """What a job of this image is to do: as the rule says, or all platforms, to `to`."""
    return JobSpec(image, to=to, cause=cause) if rule is None else JobSpec(image, rule.platforms, rule.to, cause=cause)


def _same(one: JobSpec, other: JobSpec) -> bool:
    """But for who asked for it; one with a time of its own is another."""
    return one.is_same_image(other) and one.by_unix_s is one.after_unix_s is None


def _goes_on(job: Job | None) -> bool:
    return job is not None and not job.is_over


def _loaded(saved: SavedEvent) -> Event | None:
    try:
        event = load_event(saved)
    except ValueError as error:
        logger.error("event_damaged %s: it is not gone on with", error)
        return None
    if event.state is EventState.WORKING and not event.job:
        event.state = EventState.WAITING
    return event
