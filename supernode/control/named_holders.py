"""Which members of a swarm others are told of as holders: its owners, then neighbours in a ring. Plain data.

Who may be named is decided by the swarm; that a member holds anything is not known here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proto.owners import owners
from proto.wire.messages import HOLDERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.ids import Digest, PeerName


@dataclass(slots=True)
class NamedHolders:
    """Members of one blob's swarm that may be named, by node number."""

    _digest: Digest
    _names: dict[int, PeerName] = field(default_factory=dict)
    # Sorted.
    _nodes: list[int] = field(default_factory=list)
    # The owners among them, once somebody asked.
    _owner_nodes: list[int] | None = None

    def add(self, node: int, name: PeerName) -> None:
        """Name this node from now on."""
        if node in self._names:
            return
        self._names[node] = name
        insort(self._nodes, node)
        if self._owner_nodes is not None:
            # Others than these do not come into it.
            self._owner_nodes = self._owners_among([*self._owner_nodes, node])

    def remove(self, node: int) -> None:
        """Name this node to nobody any more."""
        if self._names.pop(node, None) is not None:
            del self._nodes[bisect_left(self._nodes, node)]
            self._owner_nodes = None

    def clear(self) -> None:
        """Nobody is a member any more."""
        self._names.clear()
        self._nodes.clear()
        self._owner_nodes = None

    def named_to(self, node: int) -> tuple[int, ...]:
        """Up to 20 other members: the blob's owners (proto.owners), then those that follow the asker in a ring."""
        start = bisect_left(self._nodes, node)
        ring = self._nodes[start : start + HOLDERS_MAX + 1]
        if len(ring) <= HOLDERS_MAX:
            ring += self._nodes[: min(start, HOLDERS_MAX + 1 - len(ring))]
        named = dict.fromkeys([*self._owners(), *ring])
        named.pop(node, None)
        return tuple(named)[:HOLDERS_MAX]

    def is_owner(self, node: int) -> bool:
        """Whether it is one of those that ask the origin for all while no supernode says who does."""
        return node in self._owners()

    def _owners(self) -> list[int]:
        if self._owner_nodes is None:
            self._owner_nodes = self._owners_among(self._nodes)
        return self._owner_nodes

    def _owners_among(self, candidates: Iterable[int]) -> list[int]:
        nodes = {self._names[node]: node for node in candidates}
        return [nodes[name] for name in owners(self._digest, nodes)]
