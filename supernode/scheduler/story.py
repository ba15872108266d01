"""Stories: the recent happenings of each swarm in bounded rings, put into words only when somebody asks why."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

# A happening of the whole swarm rather than of one piece.
WHOLE: Final = -1
# Happenings that name no known swarm go under this number.
NOWHERE: Final = -1

# When, piece, text, and then the text's values.
Happening: TypeAlias = tuple[Any, ...]


class Ring:
    """The last `length` happenings. A deque does the same, but is called as a method of a foreign class."""

    __slots__ = ("_happenings", "_length", "_oldest")

    def __init__(self, length: int) -> None:
        self._length = length
        self._happenings: list[Happening] = []
        self._oldest = 0

    def add(self, happening: Happening) -> None:
        """The oldest goes when there are too many."""
        if len(self._happenings) < self._length:
            self._happenings.append(happening)
            return
        self._happenings[self._oldest] = happening
        self._oldest = self._oldest + 1 if self._oldest + 1 < self._length else 0

    def in_order(self) -> list[Happening]:
        """Oldest first."""
        return self._happenings[self._oldest :] + self._happenings[: self._oldest]


class Stories:
    """One ring of `length` entries per swarm, and one for what fits no swarm."""

    __slots__ = ("_length", "rings")

    def __init__(self, length: int) -> None:
        self._length = length
        # By swarm.
        self.rings: dict[int, Ring] = {NOWHERE: Ring(length)}

    def open(self, swarm: int) -> None:
        """Begin a ring."""
        self.rings[swarm] = Ring(self._length)

    def close(self, swarm: int) -> None:
        """Forget a ring."""
        self.rings.pop(swarm, None)

    def tell(self, now: float, swarm: int, piece: int, text: str, *values: object) -> None:
        """Remember `text % values`; under NOWHERE if the swarm is not known."""
        ring = self.rings.get(swarm)
        (self.rings[NOWHERE] if ring is None else ring).add((now, piece, text, *values))

    def of(self, swarm: int, piece: int) -> list[str]:
        """What is remembered of one piece, oldest first, with what happened to the whole swarm in between."""
        return [
            f"{now:.6f} " + (f"piece {at}: " if at != WHOLE else "") + text % tuple(values)
            for now, at, text, *values in (self.rings[swarm].in_order() if swarm in self.rings else ())
            if at in (piece, WHOLE)
        ]

    def nowhere(self) -> list[str]:
        """Happenings that named a swarm, peer or lease nobody knows."""
        return [f"{now:.6f} " + text % tuple(values) for now, _, text, *values in self.rings[NOWHERE].in_order()]
