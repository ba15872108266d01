"""What a run's image cost its origin, from the counting proxy's ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.cluster.image import Image
    from benchmarks.cluster.ledger import Ledger


@dataclass(frozen=True, slots=True)
class OriginCost:
    """Of the image's layers together: body bytes that left the origin, those that had left it before, and GETs.

    `doubtful_bytes` of those sent were acknowledged by nobody, for their connection was cut, and were asked for by
    nobody again: where the image is whole in the end, they came.
    """

    sent_bytes: int
    doubtful_bytes: int
    repeated_bytes: int
    gets: int
    # When the first byte left, monotonic; None if none did.
    first_byte_s: float | None
    # A line for each layer that did not leave exactly once.
    problems: tuple[str, ...]


def origin_cost(ledger: Ledger, image: Image) -> OriginCost:
    """Add up what the ledger has of the image."""
    digests = [layer.digest for layer in image.layers]
    times = [at_s for digest in digests if (at_s := ledger.first_byte_s(digest)) is not None]
    problems = []
    doubtful = sum(map(ledger.doubtful_bytes, digests))
    for number, layer in enumerate(image.layers):
        sent = ledger.blob_bytes(layer.digest) + ledger.doubtful_bytes(layer.digest)
        repeated = ledger.repeated_bytes(layer.digest)
        if sent != layer.size_bytes or repeated:
            problems.append(
                f"layer {number}: the origin sent {sent} bytes of {layer.size_bytes}, {repeated} of them again"
            )
    return OriginCost(
        sent_bytes=sum(map(ledger.blob_bytes, digests)) + doubtful,
        doubtful_bytes=doubtful,
        repeated_bytes=sum(map(ledger.repeated_bytes, digests)),
        gets=sum(map(ledger.gets, digests)),
        first_byte_s=min(times, default=None),
        problems=tuple(problems),
    )
