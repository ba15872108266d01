"""What becomes of jobs: order, attempts, backoff, dead letters, cancelling, history, restarts; and under anything."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supernode.jobs import machine
from supernode.jobs.contract import (
    BlobEnded,
    BlobMoved,
    CancelWanted,
    Fetch,
    Forget,
    KeepsChanged,
    Resolve,
    Resolved,
    ResolveFailed,
    Save,
    Stop,
    Submitted,
    Wakeup,
)
from supernode.jobs.job import Job, JobBlob, JobSpec, JobState, load
from supernode.jobs.machine import (
    ACTIVE_MAX,
    ATTEMPTS_MAX,
    BACKOFF_S,
    HISTORY_MAX,
    PARTS_MAX,
    PARTS_PAUSE_S,
    QUIET_MAX,
    QUIET_S,
    RETRY_AFTER_MAX_S,
    STALL_S,
    Jobs,
)

if TYPE_CHECKING:
    from supernode.jobs.contract import Command, Event

SPEC = JobSpec("registry.example/app:1", ("linux/amd64",))
BLOBS = (JobBlob("sha256:a", 100, "registry.example", "app"), JobBlob("sha256:b", 50, "registry.example", "app", True))
NODES = ("n1", "n2")


class Desk:
    """Feeds events to a machine, and keeps what it saved as the state store would."""

    def __init__(self) -> None:
        self.saved: dict[int, str] = {}
        self.now = 1000.0
        self.jobs = Jobs(random.Random(1))

    def tell(self, event: Event, after_s: float = 0.0) -> list[Command]:
        self.now += after_s
        commands = self.jobs.handle(event, self.now)
        for command in commands:
            if isinstance(command, Save):
                self.saved[command.job.number] = command.job.text
            elif isinstance(command, Forget):
                del self.saved[command.job]
        return commands

    def submit(self, spec: JobSpec = SPEC) -> Job:
        self.tell(Submitted(spec))
        return self.jobs.jobs[self.jobs.last_number]

    def resolve(self, job: Job, nodes: tuple[str, ...] = NODES) -> list[Command]:
        return self.tell(Resolved(job.number, job.attempts, "sha256:top", BLOBS, nodes))

    def end(self, job: Job, node: str, error: str = "") -> None:
        for blob in BLOBS:
            self.tell(BlobEnded(job.number, job.attempts, node, blob.digest, error))

    def wake(self) -> list[Command]:
        due = self.jobs.next_wakeup()
        assert due is not None
        self.now = max(self.now, due)
        return self.tell(Wakeup())

    def restart(self) -> None:
        """As after kill -9: what was saved is all there is."""
        from supernode.state.base import SavedJob

        jobs = [load(SavedJob(number, text)) for number, text in self.saved.items()]
        self.jobs = Jobs(random.Random(2), jobs, self.now)


def test_a_job_is_saved_before_it_is_worked_on() -> None:
    desk = Desk()
    first, *others = desk.tell(Submitted(SPEC))
    assert isinstance(first, Save)
    assert Resolve(1, 1, SPEC) in others


def test_a_job_is_done_once_every_node_has_every_blob() -> None:
    desk = Desk()
    job = desk.submit()
    assert Fetch(1, 1, NODES, BLOBS) in desk.resolve(job)
    desk.end(job, "n1")
    assert job.state is JobState.RUNNING
    desk.end(job, "n2")
    assert (job.state, job.nodes_done, job.nodes_count, job.size_bytes) == (JobState.DONE, 2, 2, 150)


def test_more_blobs_of_nodes_than_can_be_looked_after_fail_at_once() -> None:
    desk = Desk()
    job = desk.submit()
    commands = desk.resolve(job, tuple(map(str, range(PARTS_MAX // len(BLOBS) + 1))))
    assert (job.state, "zone by zone" in job.error) == (JobState.FAILED, True)
    assert not any(isinstance(command, Fetch) for command in commands)


def test_a_job_waits_while_others_are_to_bring_all_that_can_be_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PARTS_MAX", 5)
    desk = Desk()
    first, second = desk.submit(), desk.submit()
    desk.resolve(first)
    assert not any(isinstance(command, Fetch) for command in desk.resolve(second))
    assert (second.state, second.attempts) == (JobState.WAITING, 0)
    desk.end(first, "n1")
    desk.tell(Wakeup(), after_s=PARTS_PAUSE_S)
    assert Fetch(2, 1, ("n1",), BLOBS) in desk.resolve(second, ("n1",))


def test_what_a_node_holds_is_told_blob_by_blob() -> None:
    desk = Desk()
    job = desk.submit()
    desk.resolve(job)
    desk.tell(BlobMoved(1, 1, "n1", "sha256:a", 40))
    desk.tell(BlobEnded(1, 1, "n1", "sha256:b"))
    assert (job.nodes["n1"].held_bytes, job.nodes["n2"].held_bytes) == (90, 0)


def test_an_attempt_of_which_a_node_failed_is_made_again_later_and_later() -> None:
    desk = Desk()
    job = desk.submit()
    waits = []
    for _ in range(ATTEMPTS_MAX - 1):
        desk.resolve(job)
        desk.end(job, "n1")
        desk.end(job, "n2", "its store is full")
        assert job.state is JobState.WAITING
        assert "its store is full" in job.error
        waits.append(job.retry_unix_s - desk.now)
        desk.wake()
    assert all(BACKOFF_S * 2**n * 0.8 <= wait <= BACKOFF_S * 2**n * 1.2 for n, wait in enumerate(waits))


def test_a_job_without_an_attempt_left_has_failed_and_says_which_nodes_lack_it() -> None:
    desk = Desk()
    job = desk.submit()
    for _ in range(ATTEMPTS_MAX):
        desk.resolve(job)
        desk.end(job, "n1")
        desk.end(job, "n2", "its store is full")
        if not job.is_over:
            desk.wake()
    assert (job.state, job.failed_nodes) == (JobState.FAILED, {"n2": "its store is full"})
    assert desk.jobs.next_wakeup() is None


def test_what_cannot_be_mended_by_waiting_is_tried_once() -> None:
    desk = Desk()
    job = desk.submit()
    desk.tell(ResolveFailed(1, 1, "no such image", lasting=True))
    assert (job.state, job.error) == (JobState.FAILED, "no such image")


def test_a_registry_that_wants_to_be_left_alone_is() -> None:
    desk = Desk()
    job = desk.submit()
    desk.tell(ResolveFailed(1, 1, "429", retry_after_s=300.0))
    assert job.retry_unix_s - desk.now == 300.0


def test_a_cancelled_job_is_stopped_and_what_comes_of_it_counts_for_nothing() -> None:
    desk = Desk()
    job = desk.submit()
    desk.resolve(job)
    assert Stop(1, 1) in desk.tell(CancelWanted(1))
    desk.end(job, "n1")
    assert job.state is JobState.CANCELLED


def test_an_attempt_of_which_nothing_comes_fails() -> None:
    desk = Desk()
    job = desk.submit()
    desk.resolve(job)
    desk.tell(BlobMoved(1, 1, "n1", "sha256:a", 40), after_s=STALL_S / 2)
    assert Stop(1, 1) not in desk.tell(Wakeup(), after_s=STALL_S / 2 + 1)
    assert Stop(1, 1) in desk.wake()
    assert job.state is JobState.WAITING


def test_a_node_that_trickles_keeps_no_attempt_without_end() -> None:
    desk = Desk()
    job = desk.submit()
    blobs = (JobBlob("sha256:a", 1_000_000, "registry.example", "app"),)
    desk.tell(Resolved(job.number, job.attempts, "sha256:top", blobs, NODES))
    tellings = 0
    while job.state is JobState.RUNNING:
        tellings += 1
        desk.tell(BlobMoved(1, 1, "n1", "sha256:a", tellings), after_s=STALL_S / 3)
        desk.tell(Wakeup())
    assert (job.state, tellings) == (JobState.WAITING, 3)


def test_a_slow_node_that_gets_on_keeps_its_attempt() -> None:
    desk = Desk()
    job = desk.submit()
    blobs = (JobBlob("sha256:a", 1_000_000, "registry.example", "app"),)
    desk.tell(Resolved(job.number, job.attempts, "sha256:top", blobs, NODES))
    for tellings in range(1, 1_000):
        desk.tell(BlobMoved(1, 1, "n1", "sha256:a", 1_000 * tellings), after_s=STALL_S / 6)
        desk.tell(Wakeup())
    assert job.state is JobState.RUNNING


def test_what_came_before_and_was_lost_counts_once() -> None:
    desk = Desk()
    job = desk.submit()
    desk.resolve(job)
    for held_bytes in (100, 0, 100, 0, 100):
        desk.tell(BlobMoved(1, 1, "n1", "sha256:a", held_bytes), after_s=STALL_S / 4)
        desk.tell(Wakeup())
    assert job.state is JobState.WAITING


def test_a_job_whose_time_is_over_has_failed() -> None:
    desk = Desk()
    job = desk.submit(JobSpec("registry.example/app:1", by_unix_s=desk.now + 30.0))
    desk.resolve(job)
    desk.wake()
    assert (job.state, desk.now) == (JobState.FAILED, 1030.0)


def test_no_more_than_a_few_are_worked_on_and_the_rest_in_their_order() -> None:
    desk = Desk()
    jobs = [desk.submit() for _ in range(ACTIVE_MAX + 2)]
    assert [job.is_active for job in jobs] == [True] * ACTIVE_MAX + [False] * 2
    desk.tell(CancelWanted(jobs[1].number))
    assert [job.is_active for job in jobs[ACTIVE_MAX:]] == [True, False]


def test_jobs_whose_registries_say_nothing_keep_no_others_waiting() -> None:
    desk = Desk()
    stuck = [desk.submit() for _ in range(ACTIVE_MAX)]
    other, last = desk.submit(), desk.submit()
    desk.tell(Wakeup(), after_s=QUIET_S - 1.0)
    assert not other.is_active
    assert desk.jobs.next_wakeup() == desk.now + 1.0
    desk.tell(Wakeup(), after_s=1.0)
    assert (other.is_active, last.is_active) == (True, True)
    assert all(job.is_active for job in stuck)


def test_jobs_that_a_few_nodes_alone_hold_up_keep_no_others_waiting() -> None:
    desk = Desk()
    running = [desk.submit() for _ in range(ACTIVE_MAX)]
    other = desk.submit()
    for job in running:
        desk.resolve(job)
    desk.tell(Wakeup(), after_s=QUIET_S)
    assert not other.is_active
    for blob in BLOBS:
        desk.tell(BlobEnded(running[0].number, 1, NODES[0], blob.digest))
    desk.tell(Wakeup(), after_s=QUIET_S)
    assert other.is_active


def test_no_more_than_some_of_which_nothing_comes_are_worked_on() -> None:
    desk = Desk()
    jobs = [desk.submit() for _ in range(ACTIVE_MAX + QUIET_MAX + 1)]
    for _ in range(QUIET_MAX + 1):
        desk.tell(Wakeup(), after_s=QUIET_S)
    assert [job.is_active for job in jobs] == [True] * (ACTIVE_MAX + QUIET_MAX) + [False]


def test_beyond_the_limit_no_job_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OPEN_MAX", 2)
    desk = Desk()
    for _ in range(3):
        desk.tell(Submitted(SPEC))
    assert (len(desk.jobs.jobs), desk.jobs.is_full(SPEC)) == (2, True)


def test_of_jobs_that_are_over_the_oldest_are_forgotten() -> None:
    desk = Desk()
    for _ in range(HISTORY_MAX + 3):
        desk.tell(CancelWanted(desk.submit().number))
    assert list(desk.jobs.jobs) == list(range(4, HISTORY_MAX + 4))
    assert sorted(desk.saved) == list(desk.jobs.jobs)


def test_a_job_that_ends_at_an_earlier_time_than_those_before_is_not_forgotten_at_once() -> None:
    desk = Desk()
    for _ in range(HISTORY_MAX + 1):
        desk.tell(CancelWanted(desk.submit().number))
    ended, _ = desk.submit(), desk.submit()
    desk.tell(CancelWanted(ended.number), after_s=-500.0)
    assert desk.jobs.jobs[ended.number].is_over


def test_after_an_end_in_order_a_job_goes_on_and_the_attempt_that_was_cut_off_does_not_count() -> None:
    desk = Desk()
    desk.resolve(desk.submit())
    for saved in desk.jobs.close():
        desk.saved[saved.number] = saved.text
    desk.restart()
    assert Resolve(1, 1, SPEC) in desk.tell(Wakeup())


def test_a_job_during_which_the_process_ends_each_time_has_failed() -> None:
    desk = Desk()
    desk.submit()
    for attempt in range(2, ATTEMPTS_MAX + 1):
        desk.restart()
        assert Resolve(1, attempt, SPEC) in desk.tell(Wakeup())
    desk.restart()
    desk.tell(Wakeup())
    (job,) = desk.jobs.jobs.values()
    assert (job.state, "the supernode ended" in job.error) == (JobState.FAILED, True)


def test_a_clock_that_is_set_back_makes_no_job_wait_for_longer() -> None:
    desk = Desk()
    job, later = desk.submit(), desk.submit(JobSpec("registry.example/app:1", after_unix_s=5000.0))
    desk.tell(ResolveFailed(1, 1, "down"))
    wait_s = job.retry_unix_s - desk.now
    desk.tell(Wakeup(), after_s=-900.0)
    assert job.retry_unix_s - desk.now == pytest.approx(wait_s)
    assert later.retry_unix_s == 5000.0


def test_a_clock_that_was_set_back_meanwhile_makes_no_job_wait_for_days() -> None:
    desk = Desk()
    desk.submit()
    desk.now += 1e6
    desk.tell(ResolveFailed(1, 1, "down"))
    desk.now -= 1e6
    desk.restart()
    (job,) = desk.jobs.jobs.values()
    assert job.retry_unix_s <= desk.now + RETRY_AFTER_MAX_S


def test_after_a_restart_what_was_over_is_over_and_no_number_is_given_twice() -> None:
    desk = Desk()
    done = desk.submit()
    desk.resolve(done)
    for node in NODES:
        desk.end(done, node)
    desk.restart()
    assert desk.jobs.jobs[1].state is JobState.DONE
    assert (desk.jobs.jobs[1].nodes_done, desk.jobs.jobs[1].spec) == (2, SPEC)
    assert desk.submit().number == 2


def test_what_is_for_later_waits_for_its_time() -> None:
    desk = Desk()
    job = desk.submit(JobSpec("registry.example/app:1", after_unix_s=desk.now + 3600.0))
    desk.restart()
    assert desk.jobs.jobs[job.number].state is JobState.WAITING
    assert desk.jobs.next_wakeup() == desk.now + 3600.0
    assert Resolve(1, 1, job.spec) in desk.wake()


KEEP = JobSpec("registry.example/app:1", keep=True)


def kept(desk: Desk) -> list[int]:
    return [job.number for job in desk.jobs.jobs.values() if job.is_kept]


def keep(desk: Desk, spec: JobSpec = KEEP) -> Job:
    """To the end."""
    job = desk.submit(spec)
    assert KeepsChanged() in desk.resolve(job)
    for node in NODES:
        desk.end(job, node)
    assert job.state is JobState.DONE
    return job


def test_what_is_kept_outlives_its_job_the_history_and_a_restart() -> None:
    desk = Desk()
    job = keep(desk)
    for _ in range(HISTORY_MAX + 3):
        desk.tell(CancelWanted(desk.submit().number))
    desk.restart()
    assert kept(desk) == [job.number]
    assert desk.jobs.jobs[job.number].blobs == BLOBS


def test_what_is_cancelled_is_kept_no_more() -> None:
    desk = Desk()
    job = keep(desk)
    assert KeepsChanged() in desk.tell(CancelWanted(job.number))
    desk.restart()
    assert (kept(desk), desk.jobs.jobs[job.number].state) == ([], JobState.DONE)


def test_what_could_not_be_brought_to_every_node_is_kept_by_the_others() -> None:
    desk = Desk()
    job = desk.submit(JobSpec("registry.example/app:1", by_unix_s=desk.now + 60.0, keep=True))
    desk.resolve(job)
    desk.tell(Wakeup(), after_s=61.0)
    assert (job.state, kept(desk)) == (JobState.FAILED, [job.number])


def test_what_a_name_stands_for_now_is_kept_in_place_of_what_it_stood_for() -> None:
    desk = Desk()
    under_way = desk.submit(KEEP)
    desk.resolve(under_way)
    again = keep(desk)
    other = keep(desk, JobSpec("registry.example/other:1", keep=True))
    assert (kept(desk), under_way.state) == ([again.number, other.number], JobState.CANCELLED)


def test_no_more_is_kept_than_a_node_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "KEPT_BLOBS_MAX", 1)
    desk = Desk()
    job = desk.submit(KEEP)
    desk.resolve(job)
    assert (job.state, kept(desk)) == (JobState.FAILED, [])


def test_beyond_the_limit_nothing_more_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "KEEPS_MAX", 1)
    desk = Desk()
    keep(desk)
    assert (desk.jobs.is_full(KEEP), desk.jobs.is_full(SPEC)) == (True, False)


def test_an_image_for_which_no_node_is_there_waits() -> None:
    desk = Desk()
    job = desk.submit(JobSpec("registry.example/app:1", to="zone=eu"))
    desk.resolve(job, ())
    assert (job.state, job.error) == (JobState.WAITING, "no connected node is meant by 'zone=eu'")


class JobsUnderAnything(RuleBasedStateMachine):
    """Any order of events, also of attempts that are over, kills in between, and a clock that steps back."""

    @initialize()
    def start(self) -> None:
        self.desk = Desk()
        self.accepted: set[int] = set()
        self.over: dict[int, JobState] = {}
        self.begun: set[tuple[int, int]] = set()
        self.stopped: set[tuple[int, int]] = set()

    def tell(self, event: Event) -> None:
        known = {number: text for number, text in self.desk.saved.items()}
        for command in self.desk.tell(event):
            if isinstance(command, Save):
                known[command.job.number] = command.job.text
            elif isinstance(command, Resolve):
                assert command.job in known, "saved before it is worked on"
            elif isinstance(command, Fetch):
                self.begun.add((command.job, command.attempt))

    @rule(by=st.one_of(st.none(), st.floats(-10.0, 1000.0)), keep=st.booleans())
    def submit(self, by: float | None, keep: bool) -> None:
        by_unix_s = None if by is None else self.desk.now + by
        spec = JobSpec("registry.example/app:1", to="all" if keep else "2", by_unix_s=by_unix_s, keep=keep)
        full = self.desk.jobs.is_full(spec)
        self.tell(Submitted(spec))
        if not full:
            self.accepted.add(self.desk.jobs.last_number)

    @rule(job=st.integers(0, 6), attempt=st.integers(0, 6), nodes=st.integers(0, 3))
    def resolve(self, job: int, attempt: int, nodes: int) -> None:
        self.tell(Resolved(job, attempt, "sha256:top", BLOBS, tuple(f"n{number}" for number in range(nodes))))

    @rule(job=st.integers(1, 6), nodes=st.integers(1, 2))
    def resolve_the_present_attempt(self, job: int, nodes: int) -> None:
        if job in self.desk.jobs.jobs:
            self.resolve(job, self.desk.jobs.jobs[job].attempts, nodes)

    @rule(job=st.integers(0, 6), attempt=st.integers(0, 6), lasting=st.booleans(), after=st.floats(0.0, 1e9))
    def fail_to_resolve(self, job: int, attempt: int, lasting: bool, after: float) -> None:
        self.tell(ResolveFailed(job, attempt, "no", lasting, after))

    @rule(job=st.integers(1, 6), node=st.integers(0, 2), blob=st.sampled_from(BLOBS), error=st.sampled_from(["", "no"]))
    def end_a_blob(self, job: int, node: int, blob: JobBlob, error: str) -> None:
        attempt = self.desk.jobs.jobs[job].attempts if job in self.desk.jobs.jobs else 1
        self.tell(BlobMoved(job, attempt, f"n{node}", blob.digest, 7))
        self.tell(BlobEnded(job, attempt, f"n{node}", blob.digest, error))

    @rule(job=st.integers(0, 6))
    def cancel(self, job: int) -> None:
        self.tell(CancelWanted(job))

    @rule(seconds=st.floats(-50.0, 400.0))
    def pass_time(self, seconds: float) -> None:
        self.desk.now += seconds
        self.tell(Wakeup())

    @rule()
    def wake(self) -> None:
        due = self.desk.jobs.next_wakeup()
        if due is not None:
            self.desk.now = max(self.desk.now, due)
            self.tell(Wakeup())

    @rule()
    def kill(self) -> None:
        self.desk.restart()
        self.tell(Wakeup())

    @invariant()
    def no_job_is_lost_and_what_is_over_stays_over(self) -> None:
        if not hasattr(self, "desk"):
            return
        jobs = self.desk.jobs.jobs
        assert set(jobs) == set(self.desk.saved) == self.accepted
        for number, state in self.over.items():
            assert jobs[number].state is state
        self.over = {number: job.state for number, job in jobs.items() if job.is_over}

    @invariant()
    def limits_hold_and_something_is_due(self) -> None:
        if not hasattr(self, "desk"):
            return
        jobs = self.desk.jobs.jobs.values()
        assert sum(job.is_active for job in jobs) <= ACTIVE_MAX + QUIET_MAX
        assert all(job.attempts <= ATTEMPTS_MAX for job in jobs)
        assert sum(job.is_kept for job in jobs) <= 1, "of one name what it stands for now"
        due = self.desk.jobs.next_wakeup()
        assert (due is not None) == any(not job.is_over for job in jobs)


TestJobsUnderAnything = JobsUnderAnything.TestCase
TestJobsUnderAnything.settings = settings(max_examples=60, stateful_step_count=40)
