"""A node's client, such as a container engine: reads the scenario's blobs in order, some at a time.

It outlives its node's peer: when that comes back, the client asks again for what it has not got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.environment import Environment
    from benchmarks.simulator.peer import Peer


class Client:
    """One a node. Times are virtual seconds."""

    def __init__(self, node: int, environment: Environment, on_ended: Callable[[Client], None]) -> None:
        self.node = node
        self._environment = environment
        self._on_ended = on_ended
        count = len(environment.scenario.blobs)
        # What it may read of each blob: pieces that the node's peer said are held, and which comes next.
        self._held = [0] * count
        self._withheld = [0] * count
        self._reads = [0] * count
        self._answered = [False] * count
        self._complete = [False] * count
        self._asked = [False] * count
        self._next = 0
        self.asked_s: float | None = None
        self.first_byte_s: float | None = None
        self.completed_s: float | None = None
        # Why it was sent away, to go on from the origin by itself; empty as it should be.
        self.error = ""

    @property
    def ended(self) -> bool:
        """Complete, or sent away."""
        return self.completed_s is not None or bool(self.error)

    def begin(self, peer: Peer) -> None:
        """Ask for the first blobs, or again for those that are not complete."""
        if self.ended:
            return
        if self.asked_s is None:
            self.asked_s = self._environment.clock.now
        unfinished = [blob for blob, complete in enumerate(self._complete) if not complete]
        chosen = unfinished[: self._environment.scenario.parallel]
        self._next = chosen[-1] + 1
        for blob in chosen:
            self._answered[blob] = False
            self._held[blob] = peer.held(blob)
            self._want(peer, blob)

    def wants(self, blob: int) -> bool:
        """It asked for this blob and has not all of it."""
        return self._asked[blob] and not self._complete[blob]

    def _want(self, peer: Peer, blob: int) -> None:
        self._asked[blob] = True
        peer.want(blob)

    def answered(self, peer: Peer, blob: int) -> None:
        """It may read."""
        self._answered[blob] = True
        self._read_on(peer, blob)

    def piece_held(self, peer: Peer, blob: int, piece: int) -> None:
        """A piece more is at the node."""
        self._held[blob] |= 1 << piece
        if self._answered[blob] and piece == self._reads[blob]:
            self._read_on(peer, blob)

    def withhold(self, peer: Peer, blob: int, pieces: int) -> None:
        """Of these pieces (mask), and of no others, it may read nothing before the blob is complete."""
        self._withheld[blob] = pieces
        if self._answered[blob] and not self._complete[blob]:
            self._read_on(peer, blob)

    def _read_on(self, peer: Peer, blob: int) -> None:
        self._reads[blob] = first_missing(self._held[blob] & ~self._withheld[blob], self._reads[blob])
        if self._reads[blob] and self.first_byte_s is None and self._environment.scenario.layout(blob).count > 1:
            self.first_byte_s = self._environment.clock.now
        if self._reads[blob] < self._environment.scenario.layout(blob).count:
            peer.read_at(blob, self._reads[blob])

    def blob_complete(self, peer: Peer, blob: int) -> None:
        """All of it may be read: the last piece is withheld until then."""
        if self._complete[blob]:
            return
        self._complete[blob] = True
        peer.close(blob)
        now = self._environment.clock.now
        if self.first_byte_s is None:
            self.first_byte_s = now
        if self.ended:
            return
        if all(self._complete):
            self.completed_s = now
            for checker in self._environment.checkers:
                checker.completed(now, self.node)
            self._on_ended(self)
        elif self._next < len(self._complete):
            following = self._next
            self._next += 1
            self._want(peer, following)

    def sent_away(self, peer: Peer, blob: int, message: str) -> None:
        """No more of this blob comes from here."""
        peer.close(blob)
        if not self.ended:
            self.error = message
            self._on_ended(self)
