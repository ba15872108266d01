"""Harbor's preheat policies: the two dialects in which it orders a job and asks what became of it. Pure.

It speaks to this supernode as it would to dragonfly: https://goharbor.io/docs/main/administration/p2p-preheat/. The
third, kraken's, is a notification (registry_events.notifications). The registry's token that it sends is not read: the
supernode asks with the operator's login.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from proto.errors import DigestInvalid, NameInvalid
from proto.oci.routes import check_repository, parse_reference
from proto.oci.upstreams import normalise_upstream
from supernode.jobs.job import JobState
from supernode.registry_events.notice import EventUnreadable, object_of, text_of

if TYPE_CHECKING:
    from supernode.jobs.job import Job

# By what its jobs are known; no others are shown to it.
CAUSE: Final = "harbor"
# Of its jobs not over, so that those of operators and of events find room.
OPEN_MAX: Final = 200
# Of dragonfly's scopes. Its seed peers are this supernode, which has all that one node asks for.
_TO: Final = {"single_seed_peer": "1", "all_seed_peers": "1", "all_peers": "all"}
_STATES_2: Final = {JobState.DONE: "SUCCESS", JobState.FAILED: "FAILURE", JobState.CANCELLED: "FAILURE"}
_STATES_1: Final = {
    JobState.RESOLVING: "RUNNING",
    JobState.RUNNING: "RUNNING",
    JobState.DONE: "SUCCESS",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "FAILED",
}


def read_dragonfly_2(document: object) -> tuple[str, str, str]:
    """(repository with its registry, tag or digest, nodes: empty for what the rules say). Raises EventUnreadable."""
    request = object_of(document, "body")
    arguments = object_of(request.get("args"), "args")
    if request.get("type") != "preheat" or arguments.get("type") != "image":
        raise EventUnreadable("type: preheat of an image expected, no other job is done here")
    scope = arguments.get("scope") or ""
    if scope and (not isinstance(scope, str) or scope not in _TO):
        raise EventUnreadable(f"args.scope: expected {', '.join(_TO)} or none")
    return *_image(arguments.get("url"), "args.url"), _TO.get(scope, "")


def read_dragonfly_1(document: object) -> tuple[str, str]:
    """(repository with its registry, tag or digest). Raises EventUnreadable."""
    request = object_of(document, "body")
    if request.get("type") != "image":
        raise EventUnreadable("type: image expected, no other preheat is done here")
    return _image(request.get("url"), "url")


def _image(value: object, name: str) -> tuple[str, str]:
    """Of a URL of the image's manifest: https://REGISTRY/v2/NAME/manifests/REFERENCE."""
    expected = f"{name}: expected https://REGISTRY/v2/NAME/manifests/TAG"
    try:
        parts = urlsplit(text_of(value, name))
        path, _, reference = unquote(parts.path).rpartition("/manifests/")
        if not path.startswith("/v2/") or parts.username is not None:
            raise EventUnreadable(expected)
        parse_reference(reference)
        return f"{normalise_upstream(parts.netloc)}/{check_repository(path.removeprefix('/v2/'))}", reference
    except (ValueError, NameInvalid, DigestInvalid):
        raise EventUnreadable(expected) from None


def image_name(repository: str, reference: str) -> str:
    """As people write it."""
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def dragonfly_2(job: Job) -> dict[str, Any]:
    """What its GET and its POST are answered: state PENDING, SUCCESS or FAILURE."""
    failed = [
        {"url": job.spec.image, "hostname": node, "ip": "", "description": error}
        for node, error in job.failed_nodes.items()
    ]
    results = [{"scheduler_cluster_id": 1, "success_tasks": [], "failure_tasks": failed}] if failed else []
    states = [{"error": job.error, "results": results}] if job.error or results else []
    return {
        "id": job.number,
        "created_at": _time(job.created_unix_s),
        "updated_at": _time(job.ended_unix_s or job.moved_unix_s or job.created_unix_s),
        "state": _STATES_2.get(job.state, "PENDING"),
        "result": {"job_states": states},
    }


def dragonfly_1(job: Job) -> dict[str, str]:
    """What its GET is answered: Status WAITING, RUNNING, SUCCESS or FAILED."""
    return {
        "ID": str(job.number),
        "startTime": _time(job.created_unix_s),
        "finishTime": _time(job.ended_unix_s) if job.ended_unix_s else "",
        "errorMsg": job.error,
        "Status": _STATES_1.get(job.state, "WAITING"),
    }


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
