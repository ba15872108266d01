"""What distribution tells, and kraken is told."""

from __future__ import annotations

import pytest

from supernode.registry_events.notice import EVENTS_MAX, EventUnreadable, Notice
from supernode.registry_events.notifications import instances_of, read_notifications
from tests.support.registry_notifications import DIGEST, envelope, kraken_envelope, notification

KEY = "notification 320678d8-ca14-430f-8bb6-000000000001"


def test_a_pushed_tag_is_read_with_the_registry_that_the_pusher_named() -> None:
    (notice,) = read_notifications(envelope(notification())).found
    assert notice == Notice(KEY, "registry.example.com/team/app", "1.0", DIGEST)


def test_the_endpoint_says_what_the_registry_is_called() -> None:
    (notice,) = read_notifications(envelope(notification(host="10.0.0.5:5000")), "registry.lab").found
    assert notice.repository == "registry.lab/team/app"


def test_without_a_request_the_registry_is_that_of_the_url() -> None:
    event = {**notification(), "request": None}
    assert read_notifications(envelope(event)).found[0].repository == "registry.example.com/team/app"


@pytest.mark.parametrize("action", ["pull", "mount", "delete"])
def test_nothing_but_pushes_counts(action: str) -> None:
    assert read_notifications(envelope(notification(action=action))).found == []


def test_what_was_pushed_without_a_tag_is_a_part_of_something() -> None:
    assert read_notifications(envelope(notification(tag=""))).found == []


def test_kraken_is_told_with_capitals_what_is_wished() -> None:
    (notice,) = read_notifications(kraken_envelope(), by_policy=True).found
    assert notice == Notice("notification 7", "registry.example.com/team/app", "1.0", DIGEST, by_policy=True)


def test_an_event_that_makes_no_sense_costs_none_of_the_others() -> None:
    wrong = [
        notification(repository="UPPER"),
        notification(tag="a b"),
        notification(digest="sha256:short"),
        {**notification(), "id": None},
        {**notification(), "target": []},
        {**notification(), "request": {}, "target": {"repository": "a", "tag": "b", "url": "http://[::1"}},
        5,
    ]
    notices = read_notifications({"events": [*wrong, notification()]})
    assert [notice.key for notice in notices.found] == [KEY]
    assert len(notices.problems) == len(wrong)


@pytest.mark.parametrize("body", [None, [], {}, {"events": 5}, {"events": [5] * (EVENTS_MAX + 1)}])
def test_what_is_no_list_of_events_is_refused(body: object) -> None:
    with pytest.raises(EventUnreadable):
        read_notifications(body)


def test_running_registries_name_themselves() -> None:
    assert instances_of(envelope(notification(instance="one"), notification(instance="two"))) == {"one", "two"}
    assert instances_of({"events": [5, {"source": 5}]}) == instances_of(kraken_envelope()) == instances_of(5) == set()
