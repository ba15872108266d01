"""What passed through a counting proxy, request by request, and the sums that prove or disprove a claim.

Pure data: no sockets, no clocks. The proxy writes `Exchange`s; tests and benchmarks read a `Ledger` of them.
Byte counts are of bodies as sent on the wire. Intervals are half-open offsets into the blob.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Ending = Literal["open", "complete", "cut", "client-gone", "origin-gone"]


@dataclass(slots=True)
class Exchange:
    """One request and what was sent for it. `ranges` is the Range header as asked: (first, last or None).

    `body_sent_bytes` were handed to the kernel, `body_acked_bytes` were acknowledged by the client's kernel;
    they differ only where a connection ended in mid-body: whether the client got the rest before its link was cut, or
    never did, the origin cannot know. `offset` is where in the blob the body began.
    Times are monotonic seconds; `first_byte_s` is when the first body byte was sent, 0 if there was none.
    """

    number: int
    client: str
    method: str
    path: str
    query: str
    request_headers: list[tuple[str, str]]
    ranges: tuple[int, int | None] | None
    started_s: float
    status: int = 0
    offset: int = 0
    body_sent_bytes: int = 0
    body_acked_bytes: int = 0
    first_byte_s: float = 0.0
    ended_s: float = 0.0
    ending: Ending = "open"
    faulted: bool = False

    @property
    def interval(self) -> tuple[int, int]:
        """The offsets of the blob that left for the client: [first, end)."""
        return self.offset, self.offset + self.body_acked_bytes

    @property
    def interval_in_doubt(self) -> tuple[int, int]:
        """The offsets after those that were sent and never acknowledged."""
        return self.offset + self.body_acked_bytes, self.offset + self.body_sent_bytes

    def header(self, name: str) -> str | None:
        """The first request header of that name, whatever its case."""
        return next((value for key, value in self.request_headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Ledger:
    """All exchanges so far, in the order in which they began."""

    exchanges: Sequence[Exchange] = field(default_factory=tuple)

    def of_blob(self, digest: str, method: str = "GET") -> list[Exchange]:
        """The exchanges that asked for the blob `digest`."""
        ending = f"/blobs/{digest}"
        return [e for e in self.exchanges if e.method == method and e.path.endswith(ending)]

    def gets(self, digest: str) -> int:
        """GETs of the blob that were answered with some of it (200 or 206)."""
        return sum(1 for e in self.of_blob(digest) if e.status in (200, 206))

    def heads(self, digest: str) -> int:
        """HEADs of the blob."""
        return len(self.of_blob(digest, "HEAD"))

    def ranges(self, digest: str) -> list[tuple[int, int | None] | None]:
        """The Range of each GET of the blob; None where there was none."""
        return [e.ranges for e in self.of_blob(digest)]

    def intervals(self, digest: str) -> list[tuple[int, int]]:
        """The offsets of the blob that each GET delivered, empty ones left out, sorted."""
        return sorted(e.interval for e in self._delivering(digest) if e.body_acked_bytes)

    def blob_bytes(self, digest: str) -> int:
        """Body bytes of the blob that reached clients, repeated ones counted again."""
        return sum(e.body_acked_bytes for e in self._delivering(digest))

    def distinct_bytes(self, digest: str) -> int:
        """Offsets of the blob that were delivered at least once."""
        return union_bytes(self.intervals(digest))

    def repeated_bytes(self, digest: str) -> int:
        """Body bytes of the blob that were delivered although they had been delivered before."""
        return self.blob_bytes(digest) - self.distinct_bytes(digest)

    def doubtful_bytes(self, digest: str) -> int:
        """Offsets of the blob that no client acknowledged, and that were sent to one whose connection then ended."""
        known = self.intervals(digest)
        in_doubt = [e.interval_in_doubt for e in self._delivering(digest)]
        return union_bytes([*known, *in_doubt]) - union_bytes(known)

    def first_byte_s(self, digest: str) -> float | None:
        """When the blob's first byte left for a client, None if none did."""
        return min((e.first_byte_s for e in self._delivering(digest) if e.first_byte_s), default=None)

    def total_bytes(self) -> int:
        """Body bytes of all answers."""
        return sum(e.body_acked_bytes for e in self.exchanges)

    def _delivering(self, digest: str) -> list[Exchange]:
        return [e for e in self.of_blob(digest) if e.status in (200, 206)]


def union_bytes(intervals: Iterable[tuple[int, int]]) -> int:
    """How many integers lie in at least one of the half-open intervals."""
    total = 0
    reached: int | None = None
    for first, end in sorted(intervals):
        start = first if reached is None else max(first, reached)
        total += max(0, end - start)
        reached = end if reached is None else max(reached, end)
    return total
