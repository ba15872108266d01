"""/api/v1/events: how registry events stand; operators try dead ones again, drop them, and have tags scanned."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from supernode.api.operator_request import Refused, answer_of, check_may_change, document_of, time_text
from supernode.state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supernode.api.parts import ApiParts
    from supernode.registry_events.event import Event
    from supernode.registry_events.service import RegistryEvents
    from supernode.registry_events.tag_scan import TagScan

# Of each state, those that are listed.
LISTED_MAX: Final = 200
NUMBERS_MAX: Final = 1000


async def events(parts: ApiParts, _: web.Request) -> web.Response:
    """Counts of all, and the events whose turn is next, are worked on, or were the last to die."""
    return web.json_response(events_summary(parts.events, LISTED_MAX))


def events_summary(found: RegistryEvents, listed_max: int) -> dict[str, Any]:
    """For JSON: counts of all, so many events of each state, and the last look at tags."""
    queue = found.processing.queue
    listed = [*queue.dead[: -listed_max - 1 : -1], *queue.working[:listed_max], *queue.waiting[:listed_max]]
    return {**queue.counts(), "events": [_event(each) for each in listed], "scan": _scan(found.scan, listed_max)}


def rule_rows(found: RegistryEvents) -> list[dict[str, Any]]:
    """For JSON: the `[preheat."NAME"]` sections in force, in their order."""
    return [dataclasses.asdict(rule) for rule in found.rules()]


async def again(parts: ApiParts, request: web.Request) -> web.Response:
    """Dead events have another job."""
    return await _change(request, parts.events.processing.again)


async def drop(parts: ApiParts, request: web.Request) -> web.Response:
    """Dead events are done with."""
    return await _change(request, parts.events.processing.drop)


async def scan(parts: ApiParts, request: web.Request) -> web.Response:
    """Ask registries what their tags name, soon."""
    try:
        check_may_change(request)
    except Refused as error:
        return answer_of(error)
    parts.events.scan.want()
    return web.json_response(_scan(parts.events.scan, LISTED_MAX), status=202)


async def _change(request: web.Request, change: Callable[[list[int] | None], Awaitable[int]]) -> web.Response:
    try:
        check_may_change(request)
        count = await change(_numbers(await document_of(request)))
    except Refused as error:
        return answer_of(error)
    except StateError:
        return answer_of(Refused(503, "the supernode cannot write its state: its disk needs room"))
    return web.json_response({"changed": count})


def _numbers(document: dict[str, Any]) -> list[int] | None:
    """None: of all. Raises Refused."""
    unknown = sorted(set(document) - {"numbers"})
    if unknown:
        raise Refused(400, f"unknown key {unknown[0][:40]!r}; there is numbers")
    numbers = document.get("numbers")
    if numbers is None:
        return None
    fits = isinstance(numbers, list) and len(numbers) <= NUMBERS_MAX
    if not fits or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise Refused(400, f"numbers: a list of at most {NUMBERS_MAX} numbers expected, or none for all")
    return list(numbers)


def _event(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "image": event.image,
        "state": event.state.value,
        "received": time_text(event.received_unix_s),
        "job": event.job or None,
        "error": event.error,
    }


def _scan(scan: TagScan, problems_max: int) -> dict[str, Any]:
    last = None
    if scan.last is not None:
        last = dataclasses.asdict(scan.last)
        last["ended"] = time_text(last.pop("ended_unix_s"))
        last["problems"] = dict(list(last["problems"].items())[:problems_max])
    return {"running": scan.running, "last": last}
