"""What a command writes, and a reader that has enough of it: `layercast ... | head`."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def written(run: Callable[[], int]) -> int:
    """The exit code of `run`, once all that it wrote is out; 1 where its reader left before. Raises what `run` does."""
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # At its end the interpreter must find nobody to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _reader_has_left() -> bool:
    """Else it was another pipe or connection that broke."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return bool(poller.poll(0))
