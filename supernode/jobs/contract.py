"""Every event that the jobs' machine takes, and every command that it gives. Plain data.

Resolve ends in Resolved or ResolveFailed. Fetch ends, for each node and blob, in BlobEnded; what comes of an attempt
that is over counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supernode.jobs.job import JobBlob, JobSpec
    from supernode.state.base import SavedJob

# --- events --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """Somebody orders it; the first command saves the new job, whose number is the machine's `last_number` then."""

    spec: JobSpec


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """Somebody cancels it. What is over is kept no more; of one that is unknown nothing happens."""

    job: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """The image is this, and these nodes are to have it. `private`: its registry was asked with a login."""

    job: int
    attempt: int
    digest: str
    blobs: tuple[JobBlob, ...]
    nodes: tuple[str, ...]
    private: bool = False


@dataclass(frozen=True, slots=True)
class ResolveFailed:
    """It could not be found out. `lasting`: to ask again is no use. The registry wants no questions for so long."""

    job: int
    attempt: int
    message: str
    lasting: bool = False
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BlobMoved:
    """The node holds so much of the blob now."""

    job: int
    attempt: int
    node: str
    digest: str
    held_bytes: int


@dataclass(frozen=True, slots=True)
class BlobEnded:
    """The node has all of it, or does not get it: `error` says why."""

    job: int
    attempt: int
    node: str
    digest: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The time that next_wakeup() named has come."""


Event = Submitted | CancelWanted | Resolved | ResolveFailed | BlobMoved | BlobEnded | Wakeup


# --- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """To the state store, before any command that follows."""

    job: SavedJob


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop it from the state store."""

    job: int


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find out what the image is, and which nodes are to have it."""

    job: int
    attempt: int
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Fetch:
    """Have these nodes fetch all blobs."""

    job: int
    attempt: int
    nodes: tuple[str, ...]
    blobs: tuple[JobBlob, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody waits for what this job began and has not ended."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True)
class KeepsChanged:
    """Nodes are to keep other blobs than they were told."""


Command = Save | Forget | Resolve | Fetch | Stop | KeepsChanged
