"""Who was named to whom for one blob's torrent: a few neighbours each, in a graph that hangs together. Pure.

Fifty connections, each of which is told of every piece, overrun a slow link's queue of a few packets, and the more
transfers share a link the later the first whole piece arrives that can be passed on. So everybody has a few neighbours,
the first seed too. Who takes part, and how they are told, is others' business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.wire.messages import SEED_NODE

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

# Whom a newcomer is told to connect to. About as many choose it: random graphs of this degree have few hops between any
# two nodes, and hang together when many leave at once.
CHOSEN: Final = 3
# Who has as many is chosen no more while others have less.
_FULL: Final = 8
# The first seed serves all its neighbours at once: as many as a node serves (peer.torrent.session).
SEED_NEIGHBOURS: Final = 4
# One that gets nothing is given others, up to here.
_MOST: Final = 16


class Neighbours:
    """See the module. Nodes are numbers, the first seed's among them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._of: dict[int, set[int]] = {}

    def of(self, node: int) -> frozenset[int]:
        """Whom it was told to connect to, or who was told to connect to it."""
        return frozenset(self._of.get(node, ()))

    def keep(self, nodes: Collection[int], complete: Collection[int]) -> None:
        """All but these nodes have left; two that are complete have nothing for each other any more."""
        for node in self._of.keys() - set(nodes):
            for other in self._of.pop(node):
                if other in self._of:
                    self._of[other].discard(node)
        done = self._of.keys() & set(complete)
        for node in done:
            self._of[node] -= done

    def lacks(self, node: int) -> int:
        """How many neighbours are to be chosen for it, so that it has as many as a newcomer."""
        return max(0, CHOSEN - len(self._of.get(node, ())))

    def choose(self, node: int, others: Collection[int], count: int) -> list[int]:
        """Up to `count` of these nodes that become its neighbours; one at least that is known here, if there is any.

        So a way leads from everybody to whoever was known first, unless one on it left.
        """
        mine = self._of.get(node, set())
        strangers = sorted(other for other in others if other != node and other not in mine)
        self._rng.shuffle(strangers)
        # Stable: at random among equals.
        strangers.sort(key=self._reluctance)
        chosen = strangers[: min(count, max(0, _MOST - len(mine)))]
        known = next((other for other in strangers if other in self._of), None)
        if chosen and known is not None and not any(other in self._of for other in chosen):
            chosen[-1] = known
        for other in chosen:
            self._of.setdefault(node, set()).add(other)
            self._of.setdefault(other, set()).add(node)
        return chosen

    def _reluctance(self, node: int) -> int:
        """The lower, the sooner it is chosen. The first seed chooses nobody itself."""
        met = len(self._of.get(node, ()))
        if node == SEED_NODE:
            return met - SEED_NEIGHBOURS + 1 if met >= SEED_NEIGHBOURS else -1
        return max(0, met - _FULL + 1)
