"""Whom to ask for a blob's pieces without a supernode: the known holders, what they have, which piece first.

Rarest first among what is known, a reader's own piece before that, and of both only what this node's turn has come
for: what few have they send to few, who send it on. A holder that fails, or refuses, rests and is asked last; one that
lies is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import Holder  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from proto.ids import Digest  # noqa: TC001  # the same
from proto.owners import owners, place
from proto.pieces import indices, mask_of
from proto.wire.messages import HOLDERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from random import Random

    from peer.downloader.limits import Limits
    from proto.ids import PeerName


# A holder that answered none of the last so many questions is gone.
UNANSWERED_MAX: Final = 3


@dataclass(slots=True)
class KnownHolder:
    """A holder as we know it. `held` is None until it was asked."""

    holder: Holder
    held: int | None = None
    query: int = 0
    ask_at: float = 0.0
    rest_until: float = 0.0
    failures: int = 0
    transfers: int = 0
    # Questions in a row that it did not answer. A busy holder fails transfers, and is there all the same.
    unanswered: int = 0
    # Pieces (mask) that it takes from others before this node does, once somebody asked.
    earlier: int | None = None


@dataclass(slots=True)
class KnownHolders:
    """The holders of one blob, oldest first, at most twice HOLDERS_MAX."""

    digest: Digest
    known: dict[PeerName, KnownHolder] = field(default_factory=dict)

    def learn(self, holder: Holder) -> None:
        """Add or renew; the least recently named that is idle, and no owner, goes when there are too many."""
        found = self.known.pop(holder.peer, None)
        if found is None:
            found = KnownHolder(holder)
        elif found.holder is not holder:
            found.holder = holder
        self.known[holder.peer] = found
        if len(self.known) > 2 * HOLDERS_MAX:
            kept = owners(self.digest, self.known)
            idle = (
                peer
                for peer, entry in self.known.items()
                if peer not in kept and not entry.transfers and not entry.query
            )
            oldest = next(idle, None)
            if oldest is not None:
                del self.known[oldest]

    def due(self, now: float) -> Iterator[KnownHolder]:
        """Those to be asked what they hold."""
        return (entry for entry in self.known.values() if not entry.query and entry.ask_at <= now)

    def failed(self, peer: PeerName, now: float, limits: Limits, *, busy: bool = False) -> None:
        """A transfer or a question failed: it rests, and is dropped after too many in a row; not one that is busy."""
        entry = self.known.get(peer)
        if entry is None:
            return
        entry.failures += 1
        doublings = min(entry.failures, limits.holder_failures_max) - 1
        entry.rest_until = now + limits.holder_rest_s * 2**doublings
        if entry.failures >= limits.holder_failures_max and not busy:
            # It may come back: asked again, late, and holds nothing until it answered.
            entry.held = 0
            entry.ask_at = now + limits.refresh_s * limits.holder_failures_max
        elif entry.held is None:
            entry.ask_at = entry.rest_until

    def reachable(self) -> int:
        """Pieces (mask) that some holder is known to have."""
        union = 0
        for entry in self.known.values():
            union |= entry.held or 0
        return union

    def owners(self, own: PeerName, seed: PeerName | None) -> list[PeerName]:
        """Who asks the origin for this blob: of this node and the holders that are there, but never the seed.

        The supernode names it to nobody as one, and asks in its own right where it is there.
        """
        there = (peer for peer, entry in self.known.items() if entry.unanswered < UNANSWERED_MAX and peer != seed)
        return owners(self.digest, [own, *there])

    def in_turn(self, own: PeerName, count: int, doublings: int) -> int:
        """Pieces (mask, of `count`) that this node may take now: each copy is for one of those that have none.

        `doublings`: so often that number is doubled. A piece that has one copy would be sent to all at once otherwise,
        from one link, and nobody had it to send it on until all did.
        """
        there = [entry for entry in self.known.values() if entry.unanswered < UNANSWERED_MAX and entry.held is not None]
        for entry in there:
            if entry.earlier is None:
                entry.earlier = _earlier(self.digest, entry.holder.peer, own, count)
        copies = _more_than(entry.held or 0 for entry in there)
        before = _more_than((entry.earlier or 0) & ~(entry.held or 0) for entry in there)
        found = 0
        for fewer, having in enumerate(copies):
            turns = fewer + 1 << doublings
            found |= having & ~before[turns - 1] if turns <= len(before) else having
        return found

    def undecided(self) -> bool:
        """Some holder was never asked, or its first answer is still to come."""
        return any(entry.held is None for entry in self.known.values())

    def next_time(self) -> float | None:
        """When a question is due or a rest ends, whichever is first."""
        times = [entry.ask_at for entry in self.known.values() if not entry.query]
        return min(times, default=None)

    def next_rest_end(self, now: float) -> float | None:
        """When the first resting holder may be asked for pieces again."""
        return min((e.rest_until for e in self.known.values() if e.held and e.rest_until > now), default=None)

    def choose(
        self, missing: int, reader_piece: int, now: float, limits: Limits, rng: Random
    ) -> tuple[int, KnownHolder] | None:
        """The next (piece, holder) among `missing` (mask), or None when no free holder has any of it."""
        free = [
            entry
            for entry in self.known.values()
            if entry.held and entry.rest_until <= now and entry.transfers < limits.standalone_fetches_per_holder
        ]
        wanted = [entry for entry in free if (entry.held or 0) & missing]
        if not wanted:
            return None
        piece = reader_piece
        if piece < 0 or not any((entry.held or 0) & missing & 1 << piece for entry in wanted):
            piece = _random_bit(_rarest((entry.held or 0 for entry in self.known.values()), wanted, missing), rng)
        having = [entry for entry in wanted if (entry.held or 0) >> piece & 1]
        best = min((entry.failures, entry.transfers) for entry in having)
        return piece, rng.choice([entry for entry in having if (entry.failures, entry.transfers) == best])


def _earlier(digest: Digest, one: PeerName, other: PeerName, count: int) -> int:
    """Of a blob of `count` pieces those (mask) that `one` takes from other nodes before `other` does."""
    return mask_of(piece for piece in range(count) if place(digest, one, piece) < place(digest, other, piece))


def _rarest(masks: Iterable[int], wanted: list[KnownHolder], missing: int) -> int:
    """Of the missing pieces that `wanted` can give, those with the fewest copies among all masks."""
    can_get = 0
    for entry in wanted:
        can_get |= entry.held or 0
    can_get &= missing
    more_than = _more_than(mask & can_get for mask in masks)
    for level, having in enumerate(more_than):
        exactly = having & ~more_than[level + 1] if level + 1 < len(more_than) else having
        if exactly:
            return exactly
    return can_get


def _more_than(masks: Iterable[int]) -> list[int]:
    """At k the pieces that are in more than k of the masks."""
    found: list[int] = []
    for carry in masks:
        for level, having in enumerate(found):
            found[level], carry = having | carry, having & carry
        if carry:
            found.append(carry)
    return found


def _random_bit(mask: int, rng: Random) -> int:
    """A set bit, each equally likely. The mask is not 0."""
    wanted = rng.randrange(mask.bit_count())
    for position, piece in enumerate(indices(mask)):
        if position == wanted:
            return piece
    raise AssertionError("a mask has as many bits as it counts")
