"""/api/v1/jobs: preheats are ordered, looked at and cancelled. Who changes something is an operator, and no web page.

What jobs are is supernode.jobs'; what these answers look like is described in api.openapi, and a test compares them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proto.errors import ImageInvalid
from proto.oci.images import parse_platform
from supernode.api.operator_request import Refused, answer_of, check_may_change, document_of, time_text
from supernode.jobs import targets
from supernode.jobs.job import Job, JobSpec
from supernode.jobs.resolution import check_image
from supernode.jobs.runner import JobsFull
from supernode.state.base import StateError

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

IMAGE_MAX: Final = 512
PLATFORMS_MAX: Final = 16
# Nodes that are listed of one job.
NODES_MAX: Final = 1000
_KEYS: Final = {"image", "platforms", "to", "by", "keep", "after"}


async def jobs(parts: ApiParts, _: web.Request) -> web.Response:
    """All that are known, the newest first, without their nodes."""
    return web.json_response({"jobs": [job_row(each) for each in reversed(parts.jobs.jobs)]})


async def job(parts: ApiParts, request: web.Request) -> web.Response:
    """One, with its nodes."""
    try:
        return web.json_response(_with_nodes(_found(parts, request)))
    except Refused as error:
        return answer_of(error)


async def submit(parts: ApiParts, request: web.Request) -> web.Response:
    """A new one; what is answered with 201 is not lost any more."""
    try:
        check_may_change(request)
        spec = _spec(await document_of(request))
        made = await parts.jobs.submit(spec)
    except Refused as error:
        return answer_of(error)
    except JobsFull:
        return answer_of(Refused(429, "too many jobs are not over yet, or are kept: cancel some, or wait"))
    except StateError:
        return answer_of(Refused(503, "the supernode cannot write its state: its disk needs room"))
    return web.json_response(job_row(made), status=201, headers={"Location": f"/api/v1/jobs/{made.number}"})


async def cancel(parts: ApiParts, request: web.Request) -> web.Response:
    """End it; what nodes hold of it by then stays. What is over is kept no more, where it was."""
    try:
        check_may_change(request)
        found = _found(parts, request)
        await parts.jobs.cancel(found.number)
    except Refused as error:
        return answer_of(error)
    except StateError:
        return answer_of(Refused(503, "the supernode cannot write its state: its disk needs room"))
    return web.json_response(job_row(found))


def _found(parts: ApiParts, request: web.Request) -> Job:
    """Raises Refused."""
    text = request.match_info["number"]
    found = parts.jobs.job(int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else None
    if found is None:
        raise Refused(404, f"there is no job {text[:20]}; of those that are over the newest are remembered")
    return found


def _spec(document: dict[str, Any]) -> JobSpec:
    """Raises Refused that names the key."""
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        raise Refused(400, f"unknown key {unknown[0][:40]!r}; there are {', '.join(sorted(_KEYS))}")
    image, platforms, to = document.get("image"), document.get("platforms", []), document.get("to", "all")
    if not isinstance(image, str) or len(image) > IMAGE_MAX:
        raise Refused(400, f"image: a name of at most {IMAGE_MAX} characters expected")
    if not isinstance(platforms, list) or len(platforms) > PLATFORMS_MAX:
        raise Refused(400, f"platforms: a list of at most {PLATFORMS_MAX} expected")
    if isinstance(to, int) and not isinstance(to, bool):
        to = str(to)
    if not isinstance(to, str):
        raise Refused(400, "to: a text or a number expected")
    keep = document.get("keep", False)
    if not isinstance(keep, bool):
        raise Refused(400, "keep: true or false expected")
    if keep and to.isdigit():
        raise Refused(400, "keep: nodes that come later are to know whether they are meant; not by a number of them")
    try:
        named = tuple(str(parse_platform(_text(platform))) for platform in platforms)
        after, by = _time_to_come("after", document.get("after")), _time_to_come("by", document.get("by"))
        if after is not None and by is not None and by <= after:
            raise ValueError("by: a time after that of after expected")
        return JobSpec(check_image(image), named, targets.check(to), by, keep=keep, after_unix_s=after)
    except (ValueError, ImageInvalid) as error:
        raise Refused(400, str(error)[:400]) from None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("platforms: OS/ARCHITECTURE expected, for example linux/amd64")
    return value


def _time_to_come(key: str, value: object) -> float | None:
    """Unix seconds. Raises ValueError."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"{key}: a time with its zone expected, for example 2026-03-01T06:00:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"{key}: name the zone, for example 2026-03-01T06:00:00Z")
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{key}: a time that no calendar has") from None
    if at.timestamp() <= time.time():
        raise ValueError(f"{key}: that time is over")
    return at.timestamp()


def job_row(job: Job) -> dict[str, Any]:
    """Without its nodes."""
    running = job.nodes
    return {
        "number": job.number,
        "image": job.spec.image,
        "platforms": list(job.spec.platforms),
        "to": job.spec.to,
        "by": time_text(job.spec.by_unix_s),
        "after": time_text(job.spec.after_unix_s),
        "cause": job.spec.cause,
        "keep": job.spec.keep,
        "kept": job.is_kept,
        "state": job.state.value,
        "attempts": job.attempts,
        "error": job.error,
        "digest": job.digest,
        "size_bytes": job.size_bytes,
        "created": time_text(job.created_unix_s),
        "retried": time_text(job.retry_unix_s) if job.state == "waiting" and job.attempts else None,
        "ended": time_text(job.ended_unix_s or None),
        "nodes_count": len(running) or job.nodes_count,
        "nodes_done": sum(part.state == "done" for part in running.values()) if running else job.nodes_done,
    }


def _with_nodes(job: Job) -> dict[str, Any]:
    parts = [
        {"node": name, "state": part.state, "held_bytes": part.held_bytes, "error": part.error}
        for name, part in list(job.nodes.items())[:NODES_MAX]
    ]
    if not job.nodes:
        parts = [
            {"node": name, "state": "failed", "held_bytes": 0, "error": error}
            for name, error in job.failed_nodes.items()
        ]
    return {**job_row(job), "nodes": parts}
