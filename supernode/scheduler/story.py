"""Stories: the recent happenings of each swarm in bounded rings, put into words only when somebody asks why."""

from __future__ import annotations

from collections import deque

# A happening of the whole swarm rather than of one piece.
WHOLE = -1
# Happenings that name no known swarm go under this number.
NOWHERE = -1


class Stories:
    """One ring of `length` entries per swarm, and one for what fits no swarm."""

    __slots__ = ("_length", "rings")

    def __init__(self, length: int) -> None:
        self._length = length
        # By swarm: when, piece, text and its values.
        self.rings: dict[int, deque[tuple[float, int, str, tuple[object, ...]]]] = {NOWHERE: deque(maxlen=length)}

    def open(self, swarm: int) -> None:
        """Begin a ring."""
        self.rings[swarm] = deque(maxlen=self._length)

    def close(self, swarm: int) -> None:
        """Forget a ring."""
        self.rings.pop(swarm, None)

    def tell(self, now: float, swarm: int, piece: int, text: str, *values: object) -> None:
        """Remember `text % values`; under NOWHERE if the swarm is not known."""
        ring = self.rings.get(swarm)
        (self.rings[NOWHERE] if ring is None else ring).append((now, piece, text, values))

    def of(self, swarm: int, piece: int) -> list[str]:
        """What is remembered of one piece, oldest first, with what happened to the whole swarm in between."""
        return [
            f"{now:.6f} " + (f"piece {at}: " if at != WHOLE else "") + text % values
            for now, at, text, values in self.rings.get(swarm, ())
            if at in (piece, WHOLE)
        ]

    def nowhere(self) -> list[str]:
        """Happenings that named a swarm, peer or lease nobody knows."""
        return [f"{now:.6f} " + text % values for now, _, text, values in self.rings[NOWHERE]]
