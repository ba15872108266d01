"""The notifications of CNCF distribution, and the same as Harbor sends them to kraken, with capitalised keys. Pure.

https://distribution.github.io/distribution/about/notifications/. Of all that a registry tells, one counts: that a
manifest was pushed with a tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from supernode.registry_events.notice import EventUnreadable, list_of, make_notice, object_of, read_each, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supernode.registry_events.notice import Notice, Notices

MEDIA_TYPES: Final = (
    "application/vnd.docker.distribution.events.v1+json",
    "application/vnd.docker.distribution.events.v2+json",
)
_NESTED_MAX: Final = 4


def read_notifications(document: object, registry: str = "", *, by_policy: bool = False) -> Notices:
    """The pushed tags. `registry`: whose they are; where it is empty each event says that itself.

    Keys are read without regard to case. Raises EventUnreadable.
    """
    events = list_of(object_of(_lower(document), "body").get("events"), "events")
    return read_each(events, lambda event: _notice(event, registry, by_policy=by_policy))


def instances_of(document: object) -> set[str]:
    """The running registries that sent it, each by the name that it gave itself at its start."""
    found = set()
    lowered = _lower(document)
    events = lowered.get("events") if isinstance(lowered, dict) else None
    for event in events if isinstance(events, list) else ():
        source = event.get("source") if isinstance(event, dict) else None
        name = source.get("instanceid") if isinstance(source, dict) else None
        if isinstance(name, str) and name:
            found.add(name[:128])
    return found


def _notice(event: Mapping[str, Any], registry: str, *, by_policy: bool) -> Notice | None:
    if event.get("action") != "push":
        return None
    target = object_of(event.get("target"), "target")
    key = text_of(event.get("id"), "id")
    named = registry or _registry(event, target)
    return make_notice(
        f"notification {key}",
        named,
        target.get("repository"),
        target.get("tag"),
        target.get("digest"),
        by_policy=by_policy,
    )


def _registry(event: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """As who pushed called it; else as the registry does. Raises EventUnreadable."""
    request = event.get("request")
    host = request.get("host") if isinstance(request, dict) else None
    if isinstance(host, str) and host:
        return host
    try:
        named = urlsplit(str(target.get("url") or "")).netloc
    except ValueError:
        named = ""
    if not named:
        raise EventUnreadable("the event names no registry: add ?registry=NAME to the endpoint's URL")
    return named


def _lower(value: object, depth: int = _NESTED_MAX) -> Any:
    """The same with lower-case keys."""
    if isinstance(value, dict) and depth:
        return {str(key).lower(): _lower(part, depth - 1) for key, part in value.items()}
    return [_lower(part, depth - 1) for part in value] if isinstance(value, list) and depth else value
