"""Harbor's webhooks: its own payload and the same as a CloudEvent. Pure.

https://goharbor.io/docs/main/working-with-projects/project-configuration/configure-webhooks/
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from supernode.registry_events.notice import (
    EventUnreadable,
    Notices,
    list_of,
    make_notice,
    object_of,
    read_each,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supernode.registry_events.notice import Notice

CLOUD_EVENTS: Final = "application/cloudevents+json"
# Of a source and an id, with a tag and its digest.
KEY_MAX: Final = 2048
_PUSHED: Final = "PUSH_ARTIFACT"
_CLOUD_PUSHED: Final = "harbor.artifact.pushed"


def read_webhook(document: object, registry: str = "") -> Notices:
    """The pushed tags of Harbor's own payload, which has no id: it is told apart by all that it says.

    Raises EventUnreadable.
    """
    event = object_of(document, "body")
    if text_of(event.get("type"), "type") != _PUSHED:
        return Notices([], [])
    try:
        content = json.dumps(event, sort_keys=True).encode()
    except RecursionError:
        raise EventUnreadable("nested too deeply") from None
    return _notices(f"harbor {hashlib.sha256(content).hexdigest()}", event.get("event_data"), registry)


def read_cloud_event(document: object, registry: str = "") -> Notices:
    """The pushed tags of a CloudEvent; its source and id tell it apart. Raises EventUnreadable."""
    event = object_of(document, "body")
    if text_of(event.get("type"), "type") != _CLOUD_PUSHED:
        return Notices([], [])
    key = f"cloudevent {text_of(event.get('source'), 'source')} {text_of(event.get('id'), 'id')}"
    return _notices(key, event.get("data"), registry)


def _notices(key: str, data: object, registry: str) -> Notices:
    content = object_of(data, "event_data")
    repository = object_of(content.get("repository"), "repository")
    resources = list_of(content.get("resources"), "resources")
    return read_each(resources, lambda resource: _notice(key, resource, repository, registry))


def _notice(key: str, resource: Mapping[str, Any], repository: Mapping[str, Any], registry: str) -> Notice | None:
    # HOST/PROJECT/NAME:TAG
    host = registry or text_of(resource.get("resource_url"), "resource_url").partition("/")[0]
    tag, digest = resource.get("tag"), resource.get("digest")
    return make_notice(f"{key} {tag} {digest}"[:KEY_MAX], host, repository.get("repo_full_name"), tag, digest)
