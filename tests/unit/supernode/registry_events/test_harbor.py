"""Harbor's webhooks, in both of their forms."""

from __future__ import annotations

import pytest

from supernode.registry_events.harbor import read_cloud_event, read_webhook
from supernode.registry_events.notice import EventUnreadable
from tests.support.registry_notifications import DIGEST, cloud_event, harbor_webhook


@pytest.mark.parametrize(("read", "body"), [(read_webhook, harbor_webhook()), (read_cloud_event, cloud_event())])
def test_a_pushed_tag_is_read(read: type, body: object) -> None:
    (notice,) = read(body).found
    assert (notice.image, notice.digest, notice.by_policy) == ("registry.example.com/team/app:1.0", DIGEST, False)
    assert read(body, "harbor.lab").found[0].repository == "harbor.lab/team/app"


def test_the_same_webhook_is_the_same_event_and_another_is_another() -> None:
    first, same, other = (
        read_webhook(body).found[0].key for body in (harbor_webhook(), harbor_webhook(), harbor_webhook("2"))
    )
    assert first == same != other


def test_a_cloud_event_is_told_apart_by_its_source_and_id() -> None:
    other = {**cloud_event(), "source": "/projects/3"}
    assert read_cloud_event(cloud_event()).found[0].key != read_cloud_event(other).found[0].key


def test_nothing_but_pushes_counts() -> None:
    assert read_webhook(harbor_webhook(kind="SCANNING_COMPLETED")).found == []
    assert read_cloud_event(cloud_event(kind="harbor.artifact.pulled")).found == []


@pytest.mark.parametrize("tag", ["", DIGEST])
def test_what_has_no_tag_is_a_part_of_something(tag: str) -> None:
    assert read_webhook(harbor_webhook(tag)).found == []


@pytest.mark.parametrize("body", [None, {}, {"type": "PUSH_ARTIFACT"}, {"type": "PUSH_ARTIFACT", "event_data": {}}])
def test_what_makes_no_sense_is_refused(body: object) -> None:
    with pytest.raises(EventUnreadable):
        read_webhook(body)


def test_a_cloud_event_without_an_id_is_refused() -> None:
    with pytest.raises(EventUnreadable, match="id"):
        read_cloud_event({**cloud_event(), "id": ""})
