"""The routes by which Harbor's preheat policies speak to dragonfly: health, a job, and what became of it.

Dialects are registry_events.provider's. A job of Harbor's is like any other, but that no other is shown here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from proto.runtime.http_api import healthz
from supernode.api.event_senders import document_of, refusal_of_sender
from supernode.jobs.runner import JobsFull
from supernode.registry_events import provider
from supernode.registry_events.notice import EventUnreadable
from supernode.registry_events.processing import spec_of
from supernode.registry_events.rules import rule_of
from supernode.state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.api.parts import ApiParts
    from supernode.jobs.job import Job

health = healthz


async def submit_2(parts: ApiParts, request: web.Request) -> web.Response:
    """POST /oapi/v1/jobs."""
    return await _submit(parts, request, provider.read_dragonfly_2, provider.dragonfly_2)


async def job_2(parts: ApiParts, request: web.Request) -> web.Response:
    """GET /oapi/v1/jobs/{number}."""
    return _show(parts, request, provider.dragonfly_2)


async def submit_1(parts: ApiParts, request: web.Request) -> web.Response:
    """POST /preheats."""
    return await _submit(
        parts, request, lambda document: (*provider.read_dragonfly_1(document), ""), lambda job: {"ID": str(job.number)}
    )


async def job_1(parts: ApiParts, request: web.Request) -> web.Response:
    """GET /preheats/{number}."""
    return _show(parts, request, provider.dragonfly_1)


async def _submit(
    parts: ApiParts,
    request: web.Request,
    read: Callable[[object], tuple[str, str, str]],
    shown: Callable[[Job], dict[str, Any]],
) -> web.Response:
    refusal = refusal_of_sender(parts, request)
    if refusal is not None:
        return refusal
    try:
        repository, reference, to = read(await document_of(parts, request))
    except EventUnreadable as error:
        return _error(400, str(error))
    if not parts.events.is_allowed(repository.partition("/")[0]):
        return _error(403, f"{repository.partition('/')[0]} is no allowed upstream: --allow-upstream at the supernode")
    open_jobs = sum(job.spec.cause == provider.CAUSE and not job.is_over for job in parts.jobs.jobs)
    if open_jobs >= provider.OPEN_MAX:
        return _error(429, f"{open_jobs} jobs of Harbor's are not over yet: look at layercast jobs at the supernode")
    rule = None if to else rule_of(parts.events.rules(), repository, reference)
    spec = spec_of(provider.image_name(repository, reference), rule, provider.CAUSE, to or "all")
    try:
        return web.json_response(shown(await parts.jobs.submit(spec)))
    except JobsFull:
        return _error(429, "too many jobs are not over yet")
    except StateError:
        return _error(503, "the supernode cannot write its state: its disk needs room")


def _show(parts: ApiParts, request: web.Request, shown: Callable[[Job], dict[str, Any]]) -> web.Response:
    refusal = refusal_of_sender(parts, request)
    if refusal is not None:
        return refusal
    text = request.match_info["number"]
    job = parts.jobs.job(int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else None
    if job is None or job.spec.cause != provider.CAUSE:
        return _error(404, "there is no such job, or not any more")
    return web.json_response(shown(job))


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
