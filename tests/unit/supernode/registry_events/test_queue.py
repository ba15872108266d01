"""What becomes of events, without clock or store."""

from __future__ import annotations

import pytest

from supernode.jobs.job import Job, JobSpec, JobState
from supernode.registry_events.event import Event, EventState, event_of, load_event, new_event
from supernode.registry_events.notice import Notice
from supernode.registry_events.queue import DEAD_MAX, WAITING_MAX, WORKING_MAX, EventQueue, job_for
from supernode.state.base import SavedEvent

NOTICE = Notice("key", "r.example/app", "1.0", "sha256:d")


def event(number: int) -> Event:
    return event_of(number, NOTICE, 10.0)


def queue_of(*numbers: int) -> EventQueue:
    return EventQueue(map(event, numbers))


def begin(queue: EventQueue, job: int) -> Event:
    begun = queue.next()
    assert begun is not None
    queue.begun(begun, job)
    return begun


def test_events_have_their_turns_in_the_order_of_their_coming() -> None:
    queue = queue_of(3, 5)
    assert [begin(queue, job).number for job in (1, 2)] == [3, 5]
    assert queue.next() is None
    assert queue.counts() == {"waiting": 0, "working": 2, "dead": 0}


def test_an_event_is_done_with_once_its_job_is() -> None:
    queue = queue_of(1)
    begun = begin(queue, 7)
    assert queue.job_ended(7, JobState.DONE, "") == ([begun], [])
    assert queue.counts() == {"waiting": 0, "working": 0, "dead": 0}
    assert queue.job_ended(7, JobState.DONE, "") == ([], [])


@pytest.mark.parametrize("state", [JobState.CANCELLED, None])
def test_of_a_job_that_was_cancelled_or_is_forgotten_nothing_is_left(state: JobState | None) -> None:
    queue = queue_of(1)
    begin(queue, 7)
    assert [each.number for each in queue.job_ended(7, state, "")[0]] == [1]


def test_events_of_one_job_are_dead_together_when_it_fails_and_wait_again_by_hand() -> None:
    queue = queue_of(1, 2)
    for _ in range(2):
        begin(queue, 7)
    _, dead = queue.job_ended(7, JobState.FAILED, "no such tag")
    assert [(each.number, each.state, each.error) for each in dead] == [
        (1, EventState.DEAD, "no such tag"),
        (2, EventState.DEAD, "no such tag"),
    ]
    (again,) = queue.again([2, 99, 2])
    assert (again.state, again.cause) == (EventState.WAITING, "event 2, again 1")
    assert queue.next() is again
    assert [each.number for each in queue.drop(None)] == [1]
    assert queue.dead == []


def test_so_many_jobs_are_of_events_at_a_time_and_no_more() -> None:
    queue = queue_of(*range(1, WORKING_MAX + 2))
    for job in range(WORKING_MAX):
        begin(queue, job)
    assert queue.next() is None
    queue.job_ended(0, JobState.DONE, "")
    assert queue.next() is not None


def test_the_oldest_of_the_dead_make_room() -> None:
    queue = queue_of(*range(1, DEAD_MAX + 2))
    for number in range(DEAD_MAX + 1):
        begin(queue, number)
        dropped, _ = queue.job_ended(number, JobState.FAILED, "x")
    assert [each.number for each in dropped] == [1]
    assert queue.counts()["dead"] == DEAD_MAX
    assert queue.dropped == 1


def test_a_full_queue_has_no_room() -> None:
    queue = queue_of(*range(1, WAITING_MAX))
    assert queue.has_room(1)
    assert not queue.has_room(2)


def test_an_event_comes_back_from_its_text_as_it_was() -> None:
    before = event(4)
    EventQueue([before]).begun(before, 9)
    assert load_event(before.saved()) == before
    assert load_event(SavedEvent(4, new_event(NOTICE, 10.0).text)) == event(4)
    assert new_event(NOTICE, 0.0).digest == "sha256:d"
    # An operator's policy that asks for it again means it.
    assert new_event(Notice("k", "r/a", "1", "sha256:d", by_policy=True), 0.0).digest == ""


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", '{"state": "odd"}'])
def test_a_text_that_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_event(SavedEvent(1, text))


def test_the_job_of_a_cause_is_found_though_it_is_over_and_one_that_has_not_begun_does_for_its_like() -> None:
    mine = Job(1, JobSpec("app:1", cause="event 1"), 0.0, JobState.DONE)
    same = Job(2, JobSpec("app:1", cause="event 2"), 0.0)
    begun = Job(3, JobSpec("app:1", cause="event 3"), 0.0, JobState.WAITING, attempts=1)

    def is_same(job: Job) -> bool:
        return job.spec.image == "app:1"

    assert job_for("event 1", is_same, [mine, same]) is mine
    assert job_for("event 9", is_same, [mine, begun, same]) is same
    assert job_for("event 9", is_same, [mine, begun]) is None
    unsaved = Job(4, JobSpec("app:1", cause="event 1"), 0.0, JobState.CANCELLED)
    assert job_for("event 1", is_same, [unsaved]) is None
