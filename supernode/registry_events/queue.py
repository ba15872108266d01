"""Which events wait, are worked on or are dead, and what becomes of each. Pure; others save what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from supernode.jobs.job import JobState
from supernode.registry_events.event import EventState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from supernode.jobs.job import Job
    from supernode.registry_events.event import Event

# About 500 bytes of memory each.
WAITING_MAX: Final = 20_000
# Jobs of events at a time, so that those of operators find room.
WORKING_MAX: Final = 200
# Beyond it the oldest are dropped.
DEAD_MAX: Final = 1000


class EventQueue:
    """Events by number, in order. `dropped` counts the dead that had to make room."""

    def __init__(self, saved: Iterable[Event] = ()) -> None:
        self._waiting: dict[int, Event] = {}
        self._dead: dict[int, Event] = {}
        # By the number of its job; several where one job does for all.
        self._working: dict[int, list[Event]] = {}
        self.dropped = 0
        for event in saved:
            self._put(event)

    def _put(self, event: Event) -> None:
        if event.state is EventState.WORKING:
            self._working.setdefault(event.job, []).append(event)
        else:
            (self._dead if event.state is EventState.DEAD else self._waiting)[event.number] = event

    @property
    def waiting(self) -> list[Event]:
        """In the order of their coming."""
        return list(self._waiting.values())

    @property
    def working(self) -> list[Event]:
        """By the number of their jobs."""
        return [event for events in self._working.values() for event in events]

    @property
    def dead(self) -> list[Event]:
        """The oldest first."""
        return list(self._dead.values())

    def of_job(self, job: int) -> list[Event]:
        """Those that this job is at."""
        return list(self._working.get(job, ()))

    def counts(self) -> dict[str, int]:
        """How many there are, by state."""
        working = sum(map(len, self._working.values()))
        return {"waiting": len(self._waiting), "working": working, "dead": len(self._dead)}

    def has_room(self, count: int) -> bool:
        """So many more may come."""
        return len(self._waiting) + count <= WAITING_MAX

    def add(self, event: Event) -> None:
        """A new one."""
        self._put(event)

    def next(self) -> Event | None:
        """Whose turn it is; None while nobody's is."""
        return next(iter(self._waiting.values()), None) if len(self._working) < WORKING_MAX else None

    def begun(self, event: Event, job: int) -> None:
        """A job is at it."""
        del self._waiting[event.number]
        event.state, event.job, event.error = EventState.WORKING, job, ""
        self._put(event)

    def ended(self, number: int) -> None:
        """One that waited is done with, without a job."""
        self._waiting.pop(number, None)

    def job_ended(self, job: int, state: JobState | None, error: str) -> tuple[list[Event], list[Event]]:
        """(those that are done with, those that are dead now). A job that nobody knows any more was done."""
        events = self._working.pop(job, [])
        if state is not JobState.FAILED:
            return events, []
        for event in events:
            event.state, event.error = EventState.DEAD, error
            self._put(event)
        return self._make_room(), events

    def _make_room(self) -> list[Event]:
        """The oldest of the dead beyond the limit."""
        over = self.dead[: max(0, len(self._dead) - DEAD_MAX)]
        for event in over:
            del self._dead[event.number]
        self.dropped += len(over)
        return over

    def again(self, numbers: Iterable[int] | None) -> list[Event]:
        """These of the dead wait once more; None: all of them."""
        chosen = self._take(numbers)
        for event in chosen:
            event.state, event.tries = EventState.WAITING, event.tries + 1
            self._put(event)
        return chosen

    def drop(self, numbers: Iterable[int] | None) -> list[Event]:
        """These of the dead are done with."""
        return self._take(numbers)

    def _take(self, numbers: Iterable[int] | None) -> list[Event]:
        wanted = list(self._dead) if numbers is None else list(dict.fromkeys(numbers))
        return [self._dead.pop(number) for number in wanted if number in self._dead]

    def jobs(self) -> list[int]:
        """The jobs that are at events."""
        return list(self._working)


def job_for(cause: str, is_same: Callable[[Job], bool], jobs: Iterable[Job]) -> Job | None:
    """The job that was made for this cause before the process ended; else one of the same spec that has not begun: it
    will ask what the tag names when it does.
    """
    waiting = None
    for job in jobs:
        # One that was not saved is cancelled: nobody counts on it.
        if job.spec.cause == cause and job.state is not JobState.CANCELLED:
            return job
        if job.state is JobState.WAITING and job.attempts == 0 and is_same(job):
            waiting = job
    return waiting
