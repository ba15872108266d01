"""The demo's two tables, a row a node and a row a blob, and the check that every figure in them is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from benchmarks.origin.image import Image
    from benchmarks.origin.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one node did: seconds, blobs whose digest was right, payload bytes by source."""

    name: str
    elapsed_s: float
    digests_right: int
    bytes_by_source: Mapping[str, int]

    @property
    def from_origin_bytes(self) -> int:
        """What the origin sent for this node: by way of the supernode's seed, or straight to the node."""
        return sum(self.bytes_by_source[source] for source in ("seed", "origin", "passthrough"))


def print_tables(console: Console, image: Image, deliveries: Sequence[Delivery], ledger: Ledger) -> None:
    """Both tables."""
    nodes = Table("node", title="nodes")
    for heading in ("seconds", "MB from seed", "MB from peers", "MB around the swarm", "digests checked"):
        nodes.add_column(heading, justify="right")
    for node in deliveries:
        around = node.bytes_by_source["origin"] + node.bytes_by_source["passthrough"]
        nodes.add_row(
            node.name,
            f"{node.elapsed_s:.2f}",
            f"{node.bytes_by_source['seed'] / 1e6:.1f}",
            f"{node.bytes_by_source['peer'] / 1e6:.1f}",
            f"{around / 1e6:.1f}",
            f"{node.digests_right}/{len(image.blobs)}",
        )
    console.print(nodes)
    origin = Table("blob", title="origin")
    for heading in ("bytes", "GETs", "ranges", "bytes sent / size"):
        origin.add_column(heading, justify="right")
    for blob in image.blobs:
        gets = ledger.gets(blob.digest)
        sent = ledger.blob_bytes(blob.digest)
        origin.add_row(
            blob.digest[:19],
            f"{blob.size_bytes:,}",
            str(gets),
            str(len(ledger.intervals(blob.digest))),
            f"{sent / blob.size_bytes:.3f}",
        )
    delivered = sum(ledger.blob_bytes(blob.digest) for blob in image.blobs)
    nodes_total = len(deliveries) * image.size_bytes
    origin.add_section()
    origin.add_row("all blobs", f"{image.size_bytes:,}", "", "", f"{delivered / image.size_bytes:.3f}")
    console.print(origin)
    console.print(
        f"{nodes_total / 1e6:.1f} MB reached the nodes, {delivered / 1e6:.1f} MB left the origin "
        f"({100 * (1 - delivered / nodes_total):.1f} % less than without Layercast)",
        highlight=False,
    )


def check(image: Image, deliveries: Sequence[Delivery], ledger: Ledger) -> list[str]:
    """What is wrong, one line each; empty when all is as promised."""
    problems = []
    for node in deliveries:
        if node.digests_right != len(image.blobs):
            problems.append(f"{node.name}: {node.digests_right} of {len(image.blobs)} digests are right")
        received = sum(node.bytes_by_source.values())
        if received != image.size_bytes:
            problems.append(f"{node.name}: received {received} bytes for an image of {image.size_bytes}")
    for blob in image.blobs:
        if ledger.repeated_bytes(blob.digest):
            problems.append(f"{blob.digest[:19]}: the origin sent {ledger.repeated_bytes(blob.digest)} bytes twice")
        if ledger.distinct_bytes(blob.digest) != blob.size_bytes:
            problems.append(f"{blob.digest[:19]}: the origin sent {ledger.distinct_bytes(blob.digest)} bytes of it")
    return problems
