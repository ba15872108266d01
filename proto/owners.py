"""Which nodes ask the origin for the others while no supernode hands out that right. Pure.

Rendezvous hashing (Thaler and Ravishankar, 1998): all nodes that know the same names come to the same answer, and a
node that is gone changes nothing but its own share. The supernode names a blob's owners to all members of its swarm,
so that they do know the same names.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.ids import Digest, PeerName

# How many nodes share a blob's origin. Each asks for one span at a time, so the origin has at most so many requests.
# Few: on an origin's slow link pieces that come one after the other are spread sooner than those that come abreast.
OWNERS_MAX: Final = 4
# A blob is divided in at most so many spans of whole pieces. A span is one request at the origin.
SPANS_MAX: Final = 32


def place(digest: Digest, peer: PeerName, span: int | None = None) -> bytes:
    """Sorts the nodes: the first OWNERS_MAX own the blob; with a span, the order in which owners try that span."""
    return blake2b(f"{digest}/{span}".encode() + peer, digest_size=8).digest()


def owners(digest: Digest, peers: Iterable[PeerName]) -> list[PeerName]:
    """The nodes of `peers` that ask the origin for this blob, at most OWNERS_MAX."""
    return sorted(peers, key=lambda peer: place(digest, peer))[:OWNERS_MAX]


def span_pieces(count: int) -> int:
    """How many pieces a span of a blob of `count` pieces has; the last one may have fewer."""
    return max(1, -(-count // SPANS_MAX))
