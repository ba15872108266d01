"""The supernode's book of open swarms: digest to number, cut, sources, hashes, and what each member was told.

Plain data with one owner, the event loop. It decides nothing: the scheduler does, and the shell around it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proto.wire.messages import HOLDERS_MAX, Source
from supernode.control.piece_hashes import BlobHashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proto.ids import Digest, PeerId
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity


@dataclass(slots=True)
class SwarmMember:
    """One session's part in a swarm: what it said and what it was told."""

    wanted: bool
    # What the scheduler knows that it holds.
    held: int = 0
    # Pieces it says it holds but whose hash is not known here: nobody could check them.
    unproven: int = 0
    # Pieces whose hash it knows: we sent it, or it came with the piece. `tells`: those that it can tell with the piece.
    hashes_sent: int = 0
    tells: int = 0
    holders_sent: tuple[int, ...] = ()
    ticket_renew_s: float = 0.0
    # Its last lease failed, and nothing came since: it may reach nobody.
    failing: bool = False
    # What it held when it was last told how the origin does, and what it was told.
    status_sent: tuple[int, str, bool] | None = None


@dataclass(slots=True, eq=False)
class OpenSwarm:
    """All that goes on for one blob."""

    number: int
    digest: Digest
    layout: PieceLayout
    hashes: BlobHashes
    sources: list[Source] = field(default_factory=list)
    members: dict[int, SwarmMember] = field(default_factory=dict)
    vouched: bool = False
    # The supernode's own pieces.
    seed_held: int = 0
    # An OriginStatus state while a fetch from the origin is not done.
    origin_state: str = ""
    # When somebody last stored a piece of it, or the delivery last got on.
    moved_s: float = float("-inf")
    elected: int | None = None
    # Fetches from the origin that run now.
    fetches: set[int] = field(default_factory=set)
    # The digest of the supernode's own copy is being compared, or was and matched.
    checking: bool = False
    seed_checked: bool = False
    # The store keeps it from eviction because somebody wants it.
    pinned: bool = False
    # Who said what the hashes are, when not the origin.
    claimant: PeerId | None = None
    # The whole blob, for InlineBlob; only of a tiny one.
    inline: bool = False
    content: bytes | None = None
    # Peers recorded as holders before the restart, by number, until they announce again.
    recovering: set[int] = field(default_factory=set)
    # Peers that the state file knows as holders.
    recorded: set[PeerId] = field(default_factory=set)
    # Members that hold or fetch pieces, by number, sorted.
    _holders: list[int] = field(default_factory=list)

    @property
    def wanted_by(self) -> int:
        """How many members want it."""
        return sum(1 for member in self.members.values() if member.wanted)

    @property
    def seed_complete(self) -> bool:
        """The supernode holds every piece (its digest may not be checked yet)."""
        return self.seed_held == self.layout.full_mask

    @property
    def pieces_held(self) -> int:
        """By all members together."""
        return sum(member.held.bit_count() for member in self.members.values())

    def join(self, node: int, *, wanted: bool) -> SwarmMember:
        """The member, made on its first announcement."""
        member = self.members.get(node)
        if member is None:
            member = self.members[node] = SwarmMember(wanted)
            insort(self._holders, node)
        member.wanted = wanted
        return member

    def leave(self, node: int) -> SwarmMember | None:
        """Forget the member; None if it was none."""
        member = self.members.pop(node, None)
        if member is not None:
            self.mistrust(node)
        return member

    def mistrust(self, node: int) -> None:
        """Name this node to nobody any more."""
        position = bisect_left(self._holders, node)
        if position < len(self._holders) and self._holders[position] == node:
            del self._holders[position]

    def holders_for(self, node: int) -> tuple[int, ...]:
        """Up to 20 other members. Each asker gets those that follow it in a ring, so that no node is named to all."""
        start = bisect_left(self._holders, node)
        ring = self._holders[start : start + HOLDERS_MAX + 1]
        if len(ring) <= HOLDERS_MAX:
            ring += self._holders[: min(start, HOLDERS_MAX + 1 - len(ring))]
        return tuple(sorted(other for other in ring if other != node)[:HOLDERS_MAX])


class SwarmRegistry:
    """Open swarms by digest and by number. Numbers are never reused within an epoch."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._by_digest: dict[Digest, OpenSwarm] = {}
        self._by_number: dict[int, OpenSwarm] = {}
        self._next_number = 1

    def open(self, digest: Digest, layout: PieceLayout) -> OpenSwarm:
        """A new swarm; the digest must not be open."""
        assert digest not in self._by_digest
        swarm = OpenSwarm(self._next_number, digest, layout, BlobHashes(self._identity, digest, layout))
        self._next_number += 1
        self._by_digest[digest] = swarm
        self._by_number[swarm.number] = swarm
        return swarm

    def close(self, swarm: OpenSwarm) -> None:
        """Forget it; late messages that name its number are ignored."""
        del self._by_digest[swarm.digest]
        del self._by_number[swarm.number]

    def of(self, digest: Digest) -> OpenSwarm | None:
        """The open swarm of a blob."""
        return self._by_digest.get(digest)

    def numbered(self, number: int) -> OpenSwarm | None:
        """The open swarm with this number."""
        return self._by_number.get(number)

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[OpenSwarm]:
        return iter(self._by_digest.values())
