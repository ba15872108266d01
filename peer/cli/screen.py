"""Where tables for people go: a terminal as wide as it is, or a file or a pipe that has room for every column."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

# Where nobody says how wide it is, 80 would break addresses and digests into pieces.
_COLUMNS_ELSEWHERE: Final = 200


def console() -> Console:
    """Colours on a terminal alone, as NO_COLOR and TERM say."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_COLUMNS_ELSEWHERE)
