"""How often a service of ours searches for cycles of garbage. Nothing else is about memory here."""

from __future__ import annotations

import gc
from typing import Final

# New objects before a search of the youngest, and searches before one of the next generation. Hardly anything here is
# garbage in cycles, but what a large swarm keeps is looked at again and again: by Python's own 700, 10 and 10 that was
# a fifth to a third of the scheduler's time at 10,000 nodes, and a fifteenth of what a tiny blob costs a peer.
_THRESHOLDS: Final = (20_000, 20, 50)


def search_less_often() -> None:
    """For the whole process, from now on."""
    gc.set_threshold(*_THRESHOLDS)


def pause() -> None:
    """Until resume(), nothing is searched: what a start makes stays. Searching it was a tenth of a peer's start."""
    gc.disable()


def resume() -> None:
    """What is there by now stays until the process ends, and is never searched."""
    gc.freeze()
    gc.enable()
