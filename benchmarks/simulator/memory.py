"""The garbage collector during a simulated run. Knows nothing of what is simulated."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def end_with_process() -> None:
    """Never search what there is now: the process ends soon, and all of it with it."""
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles inside: a run makes none that grow with it, and its millions of objects would all be looked
    at again and again, which is a quarter of the time of a small run and more of a large one.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
