"""How many payload bytes nodes got from where, and since when somebody waits for a blob: for the console."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Bytes: `origin` is what the supernode got from origins; what nodes got came from it, from nodes, or from origins
    that they asked themselves (`own`).
    """

    origin: int = 0
    supernode: int = 0
    nodes: int = 0
    own: int = 0

    @property
    def received(self) -> int:
        """What nodes got."""
        return self.supernode + self.nodes + self.own

    @property
    def saved(self) -> int:
        """What origins would have sent besides, had each node asked them for what it got."""
        return max(0, self.supernode + self.nodes - self.origin)


@dataclass(frozen=True, slots=True)
class Demand:
    """Since somebody waits for a blob whom nobody waited for before, by the control's clock.

    `received_before`: what nodes had got by then. `cold`: none of them held any of it.
    """

    began_s: float
    received_before: int
    cold: bool
