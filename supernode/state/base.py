"""What outlives a restart of the supernode: the contract of every state store, its saved records and its error.

A store is used from one thread (state.thread). A lost write costs work, never correctness: every piece is checked
against its hash and every blob against its digest. It knows no scheduling and holds no credential.

A new kind of store is one file here that has these operations and passes tests/conformance/state_suite.py, and the line
in supernode.app that opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source


class StateError(LocalError):
    """The store's disk or server failed this operation. The supernode goes on without it."""


@dataclass(frozen=True, slots=True)
class SavedSwarm:
    """A swarm as it was before. `hashes` are runs of (first piece, hashes); a piece with a hash was once ready."""

    size_bytes: int
    piece_size_bytes: int
    vouched: bool
    sources: tuple[Source, ...]
    hashes: tuple[tuple[int, bytes], ...]
    holders: tuple[bytes, ...]
    # Upstreams that its bytes came from privately; none for public bytes.
    private_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedPublic:
    """When a source last served a blob to anonymous clients, and the blob's size."""

    size_bytes: int
    checked_unix_s: float


@dataclass(frozen=True, slots=True)
class SavedJob:
    """A job of supernode.jobs as it was saved: its number, and `text`, which is the jobs' own to read."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What a registry told: by `key` it is told apart from all others. A tag of the repository (`registry/name`) names
    this digest now; empty where that is not known. `text` is the queue's own to read.
    """

    key: str
    text: str
    repository: str = ""
    tag: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SavedEvent:
    """An event of supernode.registry_events that is not done with."""

    number: int
    text: str


class SwarmState(Protocol):
    """What is written of swarms. What is added to one that was never saved, or was forgotten, is dropped."""

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None:
        """Record a swarm's cut, or that it is used again; a different cut forgets all that was known of the swarm."""

    def add_source(self, digest: Digest, source: Source) -> None:
        """The origin may be asked for the blob there; of many sources of a blob the first stay. Idempotent."""

    def add_private(self, digest: Digest, upstream: str) -> None:
        """Its bytes come privately from there."""

    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None:
        """Runs of (first piece, hashes) that became known together; a run replaces one with the same first piece."""

    def vouch(self, digest: Digest, hashes: bytes) -> None:
        """The whole blob matched its digest: these hashes of all pieces replace every run."""

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        """The peer holds pieces of the blob; of many holders the newest stay. Idempotent."""

    def remove_holder(self, digest: Digest, peer: PeerId) -> None:
        """It does not any more. Idempotent."""

    def forget_swarm(self, digest: Digest) -> None:
        """The swarm was voided: hashes, sources and holders go with it. Idempotent."""


class State(SwarmState, Protocol):
    """Blocking, used by one thread at a time; each operation happens whole or not at all, or raises StateError.

    The store limits how many swarms and public checks it keeps: the longest unused go first.
    """

    def next_epoch(self) -> int:
        """One more than at the last start, 1 at the first; recorded before it is returned."""

    def load_swarm(self, digest: Digest) -> SavedSwarm | None:
        """Everything about one blob: hashes by their first piece, holders in order."""

    def load_public(self, source: Source, digest: Digest) -> SavedPublic | None:
        """When this source was last found public for the blob."""

    def save_public(self, source: Source, digest: Digest, size_bytes: int, now_unix_s: float) -> None:
        """The source was found public for the blob just now; replaces what was saved before."""

    def forget_public(self, source: Source, digest: Digest) -> None:
        """The source no longer serves it to anonymous clients, or sent wrong content. Idempotent."""

    def save_job(self, job: SavedJob) -> None:
        """Replaces what was saved of this number. Whoever waited for it may count on it after a kill of the process."""

    def forget_job(self, number: int) -> None:
        """Idempotent."""

    def load_jobs(self) -> list[SavedJob]:
        """All that were saved and not forgotten, by number. How many there are is for the jobs to limit."""

    def add_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Save those that are new; the number of each, never given twice, or 0. Whoever waited may count on them.

        Not new is a key that is known, of an event that is done with, too, and a digest that the tag's newest event
        had. Of both the newest are remembered, many times more than wait.
        """

    def save_event(self, event: SavedEvent) -> None:
        """Replaces its text; nothing happens where it was ended."""

    def end_event(self, number: int) -> None:
        """It is done with; its key stays known. Idempotent."""

    def load_events(self) -> list[SavedEvent]:
        """All that were not ended, by number. How many there are is for the queue to limit."""

    def save_tags(self, repository: str, tags: Mapping[str, str]) -> None:
        """The tags name these digests, as was found without an event: a later event of the same digest is new."""

    def load_tags(self, repository: str) -> dict[str, str]:
        """The digest of each tag that events told of, or that were saved."""

    def load_repositories(self) -> list[str]:
        """Those of which tags are known, in order."""

    def close(self) -> None:
        """Idempotent."""
