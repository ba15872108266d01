"""Whatever is sent: it is read, or refused as unreadable. Anything else would have a registry send it for ever."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supernode.registry_events import harbor, notifications, provider
from supernode.registry_events.notice import EventUnreadable
from tests.support.registry_notifications import (
    cloud_event,
    dragonfly_1_preheat,
    dragonfly_2_job,
    envelope,
    harbor_webhook,
    notification,
)

URL = "https://harbor.example.com/v2/team/app/manifests/1.0"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text("\ud800\x00/:@[.", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODIES = [
    envelope(notification()), harbor_webhook(), cloud_event(), dragonfly_2_job(URL), dragonfly_1_preheat(URL, "a", "b"),
]  # fmt: skip
READERS: list[Any] = [
    notifications.read_notifications, notifications.instances_of, harbor.read_webhook, harbor.read_cloud_event,
    provider.read_dragonfly_1, provider.read_dragonfly_2,
]  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """The document with something else there."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, list):
        return [replaced(part, tuple(rest), new) if number == key else part for number, part in enumerate(value)]
    return {name: replaced(part, tuple(rest), new) if name == key else part for name, part in value.items()}


@given(st.sampled_from(BODIES), st.data(), JSON)
def test_a_document_with_anything_in_it_is_read_or_refused(body: Any, data: st.DataObject, new: object) -> None:
    document = replaced(body, data.draw(st.sampled_from(places(body))), new)
    for read in READERS:
        with contextlib.suppress(EventUnreadable):
            found = read(document)
            for notice in getattr(found, "found", ()):
                # As the state store writes it.
                f"{notice.key} {notice.image} {notice.digest}".encode()
