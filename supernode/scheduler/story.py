"""Stories: the recent happenings of each swarm, so many at most, put into words only when somebody asks why."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias

# A happening of the whole swarm rather than of one piece.
WHOLE: Final = -1
# Happenings that name no known swarm go under this number.
NOWHERE: Final = -1

# When, piece, text, and then the text's values.
Happening: TypeAlias = tuple[Any, ...]


class Stories:
    """The last `length` happenings of each swarm, and of what fits no swarm."""

    def __init__(self, length: int) -> None:
        self._length = length
        # By swarm.
        self.of_swarms: dict[int, deque[Happening]] = {}
        self.open(NOWHERE)

    def open(self, swarm: int) -> None:
        """Begin a swarm's."""
        self.of_swarms[swarm] = deque(maxlen=self._length)

    def close(self, swarm: int) -> None:
        """Forget a swarm's."""
        self.of_swarms.pop(swarm, None)

    def tell(self, now: float, swarm: int, piece: int, text: str, *values: object) -> None:
        """Remember `text % values`; under NOWHERE if the swarm is not known."""
        known = swarm if swarm in self.of_swarms else NOWHERE
        self.of_swarms[known].append((now, piece, text, *values))

    def of(self, swarm: int, piece: int) -> list[str]:
        """What is remembered of one piece, oldest first, with what happened to the whole swarm in between."""
        return [
            f"{now:.6f} " + (f"piece {at}: " if at != WHOLE else "") + text % tuple(values)
            for now, at, text, *values in self.of_swarms.get(swarm, ())
            if at in (piece, WHOLE)
        ]

    def nowhere(self) -> list[str]:
        """Happenings that named a swarm, peer or lease nobody knows."""
        return [f"{now:.6f} " + text % tuple(values) for now, _, text, *values in self.of_swarms[NOWHERE]]
