"""The supernode's open swarms, by digest and by number, and what they moved in all. Plain data on the event loop.

What a swarm is stands in `open_swarm`; when one is opened or closed is decided by participation and admission.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.wire.messages import SEED_NODE
from supernode.control.open_swarm import OpenSwarm
from supernode.control.piece_hashes import BlobHashes
from supernode.control.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Stored
    from supernode.control.peer_session import PeerLease
    from supernode.control.piece_hashes import Signer
    from supernode.control.swarm_member import SwarmMember

# Blobs that were dropped lately.
DROPPED_CUTS_MAX: Final = 10_000


class SwarmRegistry:
    """Open swarms by digest and by number. Numbers are never reused within an epoch."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._by_digest: dict[Digest, OpenSwarm] = {}
        self._by_number: dict[int, OpenSwarm] = {}
        self._next_number = 1
        # Of all there ever were.
        self.traffic = Traffic()
        self._opened_by: Counter[str] = Counter()
        # Of swarms that were dropped: what nodes are still sent of them is cut so, and so are they begun anew.
        self.dropped_cuts: BoundedDict[Digest, PieceLayout] = BoundedDict(DROPPED_CUTS_MAX)

    def open(self, digest: Digest, layout: PieceLayout, opener: str = "") -> OpenSwarm:
        """A new swarm, opened for nodes at this address; the digest must not be open."""
        assert digest not in self._by_digest
        swarm = OpenSwarm(self._next_number, digest, layout, BlobHashes(self._signer, digest, layout), opener)
        self._opened_by[opener] += 1
        self._next_number += 1
        self._by_digest[digest] = swarm
        self._by_number[swarm.number] = swarm
        return swarm

    def close(self, swarm: OpenSwarm) -> None:
        """Forget it; late messages that name its number are ignored."""
        del self._by_digest[swarm.digest]
        del self._by_number[swarm.number]
        self._opened_by[swarm.opener] -= 1
        if not self._opened_by[swarm.opener]:
            del self._opened_by[swarm.opener]

    def count_stored(
        self, swarm: OpenSwarm, member: SwarmMember, stored: Stored, lease: PeerLease | None, *, leased: bool = True
    ) -> None:
        """A member reports a piece. Of a lease that has ended here meanwhile a node sent it, most likely; and so where
        pieces are not `leased` in this cluster at all.
        """
        if (member.held | member.unproven) >> stored.piece & 1:
            return
        size_bytes = swarm.layout.length(stored.piece)
        for traffic in (swarm.traffic, self.traffic):
            if leased and not stored.lease:
                traffic.own += size_bytes
            elif lease is not None and lease.source == SEED_NODE:
                traffic.supernode += size_bytes
            else:
                traffic.nodes += size_bytes

    def count_fetched(self, swarm: OpenSwarm, piece: int) -> None:
        """The seed stored a piece that no lease brought: from the origin, if not from members."""
        if (swarm.seed_held | swarm.brought) >> piece & 1:
            return
        size_bytes = swarm.layout.length(piece)
        swarm.traffic.origin += size_bytes
        self.traffic.origin += size_bytes

    def opened_by(self, opener: str) -> int:
        """How many of the open ones were opened for nodes at this address."""
        return self._opened_by[opener]

    def of(self, digest: Digest) -> OpenSwarm | None:
        """The open swarm of a blob."""
        return self._by_digest.get(digest)

    def numbered(self, number: int) -> OpenSwarm | None:
        """The open swarm with this number."""
        return self._by_number.get(number)

    def part(self, number: int, node: int) -> tuple[OpenSwarm, SwarmMember] | None:
        """A swarm and this node's part in it; None for a swarm that was closed or left meanwhile."""
        swarm = self._by_number.get(number)
        member = swarm.members.get(node) if swarm is not None else None
        return (swarm, member) if swarm is not None and member is not None else None

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[OpenSwarm]:
        return iter(self._by_digest.values())
