"""What becomes of jobs: which is worked on, which is tried again and when, which has failed for good. Pure.

`now` is in Unix seconds and may step back; randomness comes in from outside. What was under way when the process ended
is begun again at once. That attempt counts, since the job may be what ended it, unless the end was in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from supernode.jobs import contract
from supernode.jobs.contract import Fetch, Forget, KeepsChanged, Resolve, Save, Stop
from supernode.jobs.job import Job, JobState, NodePart

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from supernode.jobs.contract import Command, Event
    from supernode.jobs.job import JobSpec
    from supernode.state.base import SavedJob

# Worked on at a time: each may be an image for all nodes.
ACTIVE_MAX: Final = 4
# One that a few nodes alone, or its registry, hold up for so long keeps no other waiting; so many of them.
QUIET_S: Final = 60.0
QUIET_MAX: Final = 12
FEW_PART: Final = 0.1
# Not over.
OPEN_MAX: Final = 1000
# Over: the oldest are forgotten beyond it.
HISTORY_MAX: Final = 200
# That keep what they bring, or will; and blobs of all of them, which a node is told in one message.
KEEPS_MAX: Final = 100
KEPT_BLOBS_MAX: Final = 4096
ATTEMPTS_MAX: Final = 5
# Before the second attempt, then twice as long each time; a fifth more or less, so that jobs do not come together.
BACKOFF_S: Final = 10.0
BACKOFF_MAX_S: Final = 600.0
BACKOFF_JITTER: Final = 0.2
# A registry that wants to be left alone for longer is not believed.
RETRY_AFTER_MAX_S: Final = 3600.0
# An attempt of which nothing came for so long has failed: pulls come first, and may take long. What a node brings
# counts once it is this part of the image: one that trickles keeps an attempt for two days at most.
STALL_S: Final = 900.0
STEP_PART: Final = 1 / 200
# Blobs of one job, times nodes: each of them is looked after, and takes half a KiB. So many that have not ended of all
# jobs that are worked on.
PARTS_MAX: Final = 200_000
# Before a job is looked at again for which there is no room among them.
PARTS_PAUSE_S: Final = 60.0


class Jobs:
    """One a supernode. `jobs` by number, in order, for whoever shows them; nobody else changes them."""

    def __init__(self, rng: Random, saved: Iterable[Job] = (), now: float = 0.0) -> None:
        self._rng = rng
        self.jobs: dict[int, Job] = {}
        # Of these, those that are not over.
        self._open: dict[int, Job] = {}
        self.last_number = 0
        self._out: list[Command] = []
        self._now = now
        for job in sorted(saved, key=lambda one: one.number):
            self.jobs[job.number] = job
            self.last_number = job.number
            if not job.is_over:
                self._open[job.number] = job
            if job.is_active:
                job.state, job.retry_unix_s = JobState.WAITING, now
            # The clock may have been set back since.
            job.retry_unix_s = min(job.retry_unix_s, max(now + RETRY_AFTER_MAX_S, job.spec.after_unix_s or 0.0))

    def is_full(self, spec: JobSpec) -> bool:
        """No other job like it is taken."""
        keeps = sum(job.spec.keep and (job.is_kept or not job.is_over) for job in self.jobs.values())
        return len(self._open) >= OPEN_MAX or (spec.keep and keeps >= KEEPS_MAX)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; the commands are to be carried out in order."""
        self._note_time(now)
        match event:
            case contract.Submitted():
                self._submitted(event, now)
            case contract.CancelWanted():
                self._cancel(event, now)
            case contract.Resolved():
                self._resolved(event, now)
            case contract.ResolveFailed():
                if job := self._attempt(event.job, event.attempt, JobState.RESOLVING):
                    self._failed(job, event.message, now, lasting=event.lasting, at_least_s=event.retry_after_s)
            case contract.BlobMoved():
                # Thousands a second, of which nothing follows.
                self._moved(event, now)
                return []
            case contract.BlobEnded():
                self._blob_ended(event, now)
                if not self._out:
                    # The same, but for the last.
                    return []
            case contract.Wakeup():
                pass
        self._look_at_time(now)
        self._begin(now)
        commands, self._out = self._out, []
        return commands

    def next_wakeup(self) -> float | None:
        """When Wakeup must be handled at the latest, in Unix seconds; None while nothing is pending."""
        times: list[float] = []
        room_unix_s = self._room_unix_s()
        for job in self._open.values():
            if job.spec.by_unix_s is not None:
                times.append(job.spec.by_unix_s)
            if job.is_active:
                times.append(job.moved_unix_s + STALL_S)
            elif room_unix_s is not None:
                times.append(max(job.retry_unix_s, room_unix_s))
        return min(times, default=None)

    def close(self) -> list[SavedJob]:
        """The process ends in order: what is to be saved, so that the attempts that this cuts off do not count."""
        active = [job for job in self._open.values() if job.is_active]
        for job in active:
            job.attempts -= 1
            job.state, job.retry_unix_s = JobState.WAITING, self._now
        return [job.saved() for job in active]

    # --- from the first to the last ------------------------------------------------------------------------------

    def _submitted(self, event: contract.Submitted, now: float) -> None:
        if self.is_full(event.spec):
            return
        self.last_number += 1
        job = Job(self.last_number, event.spec, now, retry_unix_s=max(now, event.spec.after_unix_s or now))
        self.jobs[job.number] = self._open[job.number] = job
        self._out.append(Save(job.saved()))

    def _begin(self, now: float) -> None:
        """As many as may be worked on, those first that wait for the longest."""
        waiting = [job for job in self._open.values() if job.state is JobState.WAITING and job.retry_unix_s <= now]
        waiting.sort(key=lambda job: (job.retry_unix_s, job.number))
        for job in waiting:
            room_unix_s = self._room_unix_s()
            if room_unix_s is None or room_unix_s > now:
                return
            job.state, job.lacking = JobState.RESOLVING, 0
            job.attempts += 1
            job.moved_unix_s = now
            self._out += [Save(job.saved()), Resolve(job.number, job.attempts, job.spec)]

    def _resolved(self, event: contract.Resolved, now: float) -> None:
        job = self._attempt(event.job, event.attempt, JobState.RESOLVING)
        if job is None:
            return
        parts = len(event.nodes) * len(event.blobs)
        if parts > PARTS_MAX:
            what = f"{len(event.blobs)} blobs for {len(event.nodes)} nodes are more than the {PARTS_MAX} of a job"
            self._failed(job, f"{what}: preheat zone by zone (--to), or fewer platforms", now, lasting=True)
            return
        if parts + self._parts_left() > PARTS_MAX:
            self._put_off(job, "it waits until others have brought more: there are too many nodes and blobs", now)
            return
        if job.spec.keep and not self._keep(job, event, now):
            self._failed(job, f"more than {KEPT_BLOBS_MAX} blobs would be kept: drop some", now, lasting=True)
            return
        job.digest, job.blobs, job.private = event.digest, event.blobs, event.private
        job.size_bytes = sum(blob.size_bytes for blob in event.blobs)
        job.nodes = {node: NodePart({blob.digest: 0 for blob in event.blobs}) for node in event.nodes}
        job.lacking = len(job.nodes)
        job.sum_up()
        if not event.nodes:
            self._failed(job, f"no connected node is meant by {job.spec.to!r}", now)
            return
        job.state, job.moved_unix_s, job.error = JobState.RUNNING, now, ""
        self._out += [Save(job.saved()), Fetch(job.number, job.attempts, event.nodes, event.blobs)]

    def _keep(self, job: Job, event: contract.Resolved, now: float) -> bool:
        """In place of what its name stood for before. False where it is too much."""
        before = [one for one in self.jobs.values() if one.is_kept and one.spec.is_same_image(job.spec)]
        kept = {blob.digest for one in self.jobs.values() if one.is_kept and one not in before for blob in one.blobs}
        if len(kept | {blob.digest for blob in event.blobs}) > KEPT_BLOBS_MAX:
            return False
        for one in before:
            if one is not job:
                self._let_go(one, now)
        self._out.append(KeepsChanged())
        return True

    def _let_go(self, job: Job, now: float) -> None:
        """It was cancelled; what is over is kept no more."""
        if not job.is_over:
            self._end(job, JobState.CANCELLED, "", now)
        if job.is_kept:
            job.blobs = ()
            self._out += [Save(job.saved()), KeepsChanged()]

    def _moved(self, event: contract.BlobMoved, now: float) -> None:
        job = self._attempt(event.job, event.attempt, JobState.RUNNING)
        part = None if job is None else job.nodes.get(event.node)
        if job is not None and part is not None and event.digest in part.left:
            part.news_bytes += event.held_bytes - part.left[event.digest]
            if part.news_bytes > 0 and part.news_bytes >= STEP_PART * job.size_bytes:
                job.moved_unix_s, part.news_bytes = now, 0
            part.left[event.digest] = event.held_bytes

    def _blob_ended(self, event: contract.BlobEnded, now: float) -> None:
        job = self._attempt(event.job, event.attempt, JobState.RUNNING)
        part = None if job is None else job.nodes.get(event.node)
        if job is None or part is None or event.digest not in part.left:
            return
        job.moved_unix_s = now
        del part.left[event.digest]
        if event.error:
            part.error = part.error or event.error
        else:
            part.done_bytes += next(blob.size_bytes for blob in job.blobs if blob.digest == event.digest)
        if not part.left:
            job.lacking -= 1
        if not job.lacking:
            self._attempt_over(job, now)

    def _attempt_over(self, job: Job, now: float) -> None:
        """Every node has ended."""
        job.sum_up()
        if job.nodes_done == job.nodes_count:
            self._end(job, JobState.DONE, "", now)
        else:
            node, error = next(iter(job.failed_nodes.items()))
            lacking = job.nodes_count - job.nodes_done
            self._failed(job, f"{lacking} of {job.nodes_count} nodes have not all of it; {node[:8]}: {error}", now)

    def _failed(self, job: Job, message: str, now: float, *, lasting: bool = False, at_least_s: float = 0.0) -> None:
        """An attempt failed: another follows later, or none."""
        if lasting or job.attempts >= ATTEMPTS_MAX:
            self._end(job, JobState.FAILED, message, now)
            return
        self._stop(job)
        delay_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** (job.attempts - 1))
        delay_s *= 1.0 + BACKOFF_JITTER * (2.0 * self._rng.random() - 1.0)
        job.state, job.error = JobState.WAITING, message
        job.retry_unix_s = now + max(delay_s, min(at_least_s, RETRY_AFTER_MAX_S))
        self._out.append(Save(job.saved()))

    def _put_off(self, job: Job, message: str, now: float) -> None:
        """It is looked at again later, and this was no attempt."""
        self._stop(job)
        job.attempts -= 1
        job.state, job.error, job.retry_unix_s = JobState.WAITING, message, now + PARTS_PAUSE_S
        self._out.append(Save(job.saved()))

    def _cancel(self, event: contract.CancelWanted, now: float) -> None:
        job = self.jobs.get(event.job)
        if job is not None:
            self._let_go(job, now)

    def _end(self, job: Job, state: JobState, error: str, now: float) -> None:
        self._stop(job)
        if job.nodes:
            job.sum_up()
        job.state, job.error, job.ended_unix_s = state, error, now
        job.nodes = {}
        if not job.spec.keep:
            job.blobs = ()
        self._open.pop(job.number, None)
        self._out.append(Save(job.saved()))
        over = [one for one in self.jobs.values() if one.is_over and not one.is_kept]
        over.sort(key=lambda one: (one.ended_unix_s, one.number))
        for oldest in over[: max(0, len(over) - HISTORY_MAX)]:
            # The last number is remembered by its job: it must not be given twice. And the end of this one is yet to be
            # told: it is the oldest if the clock was set back.
            if oldest.number not in (self.last_number, job.number):
                del self.jobs[oldest.number]
                self._out.append(Forget(oldest.number))

    def _stop(self, job: Job) -> None:
        if job.is_active:
            self._out.append(Stop(job.number, job.attempts))

    # --- time ----------------------------------------------------------------------------------------------------

    def _look_at_time(self, now: float) -> None:
        for job in list(self._open.values()):
            if job.spec.by_unix_s is not None and now >= job.spec.by_unix_s:
                self._end(job, JobState.FAILED, job.error or "it was not done by the time that was set", now)
            elif job.is_active and now >= job.moved_unix_s + STALL_S:
                for part in job.nodes.values():
                    if part.left:
                        part.left.clear()
                        part.error = part.error or "nothing came any more"
                job.sum_up()
                self._failed(job, f"nothing came for {STALL_S:g} s", now)
            elif job.state is JobState.WAITING and job.attempts >= ATTEMPTS_MAX:
                self._end(job, JobState.FAILED, f"the supernode ended during the last of {ATTEMPTS_MAX} attempts", now)

    def _note_time(self, now: float) -> None:
        """Where the clock was set back, what waits for a while waits no longer for that; an operator's time stays."""
        back_s, self._now = self._now - now, now
        if back_s > 0.0:
            for job in self._open.values():
                job.moved_unix_s = min(job.moved_unix_s, now)
                job.retry_unix_s = max(job.retry_unix_s - back_s, job.spec.after_unix_s or 0.0)

    # --- look-ups ------------------------------------------------------------------------------------------------

    def _attempt(self, number: int, attempt: int, state: JobState) -> Job | None:
        """The job, if this is what it is at."""
        job = self.jobs.get(number)
        return job if job is not None and (job.attempts, job.state) == (attempt, state) else None

    def _parts_left(self) -> int:
        """Of all jobs."""
        return sum(len(part.left) for job in self._open.values() for part in job.nodes.values())

    def _room_unix_s(self) -> float | None:
        """From when on another may be worked on, if nothing comes until then of those that are; None: once one ends."""
        active = [job for job in self._open.values() if job.is_active]
        over = len(active) - ACTIVE_MAX
        if over < 0:
            return 0.0
        quiet = sorted(job.moved_unix_s for job in active if job.lacking <= max(1.0, FEW_PART * len(job.nodes)))
        return quiet[over] + QUIET_S if over < min(QUIET_MAX, len(quiet)) else None
