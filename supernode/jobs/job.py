"""One job: what was ordered, how it stands, and its text in the state store. Plain data; the machine changes it.

    waiting -> resolving -> running -> done
       ^          |            |
       +----------+------------+-> failed (no attempt is left, or its time is over), cancelled

Times are Unix seconds: a job outlives the process. No credential is in it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from supernode.state.base import SavedJob

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of an ended job so many nodes that failed are remembered; of all others only how many there were.
FAILED_NODES_KEPT: Final = 100


class JobState(StrEnum):
    """See the module."""

    WAITING = "waiting"
    RESOLVING = "resolving"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE: Final = (JobState.RESOLVING, JobState.RUNNING)
ENDED: Final = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was asked for: an image by its name, its platforms (none: all), the nodes (jobs.targets), and until when.

    `cause`: the registry event that it comes of, or who asks in an operator's place; empty for operators.
    `after_unix_s`: it is begun then, and not before; with `by_unix_s` that is a window of time.
    `keep`: nodes do not evict it, those that come later are to have it too, until the job is cancelled.
    """

    image: str
    platforms: tuple[str, ...] = ()
    to: str = "all"
    by_unix_s: float | None = None
    cause: str = ""
    keep: bool = False
    after_unix_s: float | None = None

    def is_same_image(self, other: JobSpec) -> bool:
        """By its name, for the same nodes."""
        return (self.image, self.platforms, self.to) == (other.image, other.platforms, other.to)


@dataclass(frozen=True, slots=True)
class JobBlob:
    """One blob or manifest of the image, and where its registry has it."""

    digest: str
    size_bytes: int
    upstream: str
    repository: str
    manifest: bool = False


@dataclass(slots=True)
class NodePart:
    """How far one node is. `left`: held bytes by the digest of each blob that has not ended; `error` of the first that
    failed. `news_bytes`: came since that last counted as progress of the job.
    """

    left: dict[str, int]
    done_bytes: int = 0
    news_bytes: int = 0
    error: str = ""

    @property
    def held_bytes(self) -> int:
        """Of all blobs."""
        return self.done_bytes + sum(self.left.values())

    @property
    def state(self) -> str:
        """running, done or failed."""
        return "running" if self.left else "failed" if self.error else "done"


@dataclass(slots=True)
class Job:
    """See the module. `digest` is the image's, once it was resolved; `moved_unix_s` when something last came of it.

    `private`: its registry was asked with a login. `blobs` of one that is over are there while it is kept.
    """

    number: int
    spec: JobSpec
    created_unix_s: float
    state: JobState = JobState.WAITING
    attempts: int = 0
    retry_unix_s: float = 0.0
    ended_unix_s: float = 0.0
    error: str = ""
    digest: str = ""
    size_bytes: int = 0
    moved_unix_s: float = 0.0
    private: bool = False
    blobs: tuple[JobBlob, ...] = ()
    nodes: dict[str, NodePart] = field(default_factory=dict)
    # Of these, those that have not ended.
    lacking: int = 0
    # Of an ended job: how many nodes it had, how many have all, and why others do not.
    nodes_count: int = 0
    nodes_done: int = 0
    failed_nodes: dict[str, str] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """It is being resolved, or nodes fetch."""
        return self.state in ACTIVE

    @property
    def is_over(self) -> bool:
        """Nothing happens to it any more."""
        return self.state in ENDED

    @property
    def is_kept(self) -> bool:
        """Nodes are to keep what it brought."""
        return self.spec.keep and bool(self.blobs)

    def sum_up(self) -> None:
        """Remember of its nodes how many there are and have all, and some of those that failed."""
        self.nodes_count = len(self.nodes)
        self.nodes_done = sum(part.state == "done" for part in self.nodes.values())
        failed = [(name, part.error) for name, part in self.nodes.items() if part.error]
        self.failed_nodes = dict(failed[:FAILED_NODES_KEPT])

    def saved(self) -> SavedJob:
        """For the state store: what is needed to go on, and to tell afterwards what came of it."""
        kept = {name: getattr(self, name) for name in _KEPT}
        blobs = [dataclasses.astuple(blob) for blob in self.blobs] if self.spec.keep else []
        # "wish": as earlier releases called it.
        return SavedJob(self.number, json.dumps({**kept, "wish": dataclasses.asdict(self.spec), "blobs": blobs}))


_KEPT: Final = (
    "created_unix_s", "state", "attempts", "retry_unix_s", "ended_unix_s", "error", "digest", "size_bytes", "private",
    "nodes_count", "nodes_done", "failed_nodes",
)  # fmt: skip

_BLOB_FIELDS: Final = dataclasses.fields(JobBlob)


def load(saved: SavedJob) -> Job:
    """As it was saved; fields that a later release added are left out. Raises ValueError for what is no job."""
    try:
        text: Mapping[str, Any] = json.loads(saved.text)
        spec = dict(text["wish"])
        spec["platforms"] = tuple(spec["platforms"])
        known = {each.name for each in dataclasses.fields(JobSpec)}
        job = Job(
            saved.number, JobSpec(**{name: spec[name] for name in spec if name in known}), float(text["created_unix_s"])
        )
        for name in _KEPT:
            if name in text:
                setattr(job, name, text[name])
        job.state = JobState(text["state"])
        job.blobs = tuple(JobBlob(*blob[: len(_BLOB_FIELDS)]) for blob in text.get("blobs", ()))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"job {saved.number}: {error}") from None
    return job
