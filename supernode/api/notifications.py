"""POST /api/v1/notifications and /registry/notifications: what registries tell of pushes, saved before it is answered.

A registry sends what is refused again for ever, and nothing else meanwhile: so what makes no sense is answered with
202, too, and a line in the log. Only what may be sent again with profit is refused.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.errors import NameInvalid
from proto.oci.upstreams import normalise_upstream
from proto.runtime.logs import LogLimit
from supernode.api.event_senders import document_of, refusal_of_sender
from supernode.registry_events import harbor, notifications
from supernode.registry_events.notice import EventUnreadable, Notices
from supernode.registry_events.processing import QueueFull
from supernode.state.base import StateError

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

logger = logging.getLogger(__name__)

_RETRY_AFTER: Final = {"Retry-After": "10"}
_unreadable = LogLimit()


async def notified(parts: ApiParts, request: web.Request) -> web.Response:
    """By distribution or Harbor, as the body's media type says; `?registry=` is what its images are called here."""
    return await _notified(parts, request, by_policy=False)


async def kraken(parts: ApiParts, request: web.Request) -> web.Response:
    """By one of Harbor's preheat policies: these images are preheated, whatever the rules say."""
    return await _notified(parts, request, by_policy=True)


async def _notified(parts: ApiParts, request: web.Request, *, by_policy: bool) -> web.Response:
    refusal = refusal_of_sender(parts, request)
    if refusal is not None:
        return refusal
    try:
        registry = _registry(request)
        document = await document_of(parts, request)
        notices = read(request.content_type, document, registry, by_policy=by_policy)
    except EventUnreadable as error:
        # Which tags it was of is not known.
        parts.events.may_be_lost()
        notices = Notices([], [str(error)])
    else:
        parts.events.seen(notifications.instances_of(document))
    for problem in notices.problems:
        parts.events.count("unreadable", 1)
        text = "event_unreadable address=%s %s: it is dropped"
        _unreadable.log(logger, logging.WARNING, text, request.remote, problem)
    try:
        received = await parts.events.processing.receive(notices.found)
    except QueueFull:
        return _later("too many events wait already")
    except StateError:
        return _later("the supernode cannot write its state: its disk needs room")
    return web.json_response(
        {
            "queued": received.queued,
            "repeated": received.repeated,
            "unmatched": received.unmatched,
            "unreadable": len(notices.problems),
        },
        status=202,
    )


def read(media_type: str, document: object, registry: str, *, by_policy: bool = False) -> Notices:
    """By its media type; some senders say only that it is JSON. Raises EventUnreadable."""
    if media_type == harbor.CLOUD_EVENTS:
        return harbor.read_cloud_event(document, registry)
    is_notification = media_type in notifications.MEDIA_TYPES
    if by_policy or is_notification or (isinstance(document, dict) and "events" in document):
        return notifications.read_notifications(document, registry, by_policy=by_policy)
    if isinstance(document, dict) and "specversion" in document:
        return harbor.read_cloud_event(document, registry)
    return harbor.read_webhook(document, registry)


def _registry(request: web.Request) -> str:
    """Raises EventUnreadable."""
    named = request.query.get("registry", "")
    try:
        return normalise_upstream(named) if named else ""
    except NameInvalid as error:
        raise EventUnreadable(f"?registry=: {error}") from None


def _later(message: str) -> web.Response:
    return web.json_response({"error": message}, status=503, headers=_RETRY_AFTER)
