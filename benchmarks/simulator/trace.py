"""What happened, as one hash: equal for two runs exactly if the machines were told and said the same at equal times."""

from __future__ import annotations

import hashlib


class Trace:
    """Takes every event and command of every machine, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.entries = 0

    def add(self, now: float, node: int, what: object) -> None:
        """`what` is a frozen dataclass of a machine's contract; its repr holds all of it."""
        self.entries += 1
        self._hash.update(f"{now!r} {node} {what!r}\n".encode())

    @property
    def digest(self) -> str:
        """Hex, of all so far."""
        return self._hash.hexdigest()
