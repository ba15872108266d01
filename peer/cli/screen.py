"""Where tables for people go: a terminal as wide as it is, or a file or a pipe that has room for every column."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

# Where nobody says how wide it is, 80 would break addresses and digests into pieces.
_COLUMNS_ELSEWHERE: Final = 200


def console() -> Console:
    """Colours on a terminal alone, as NO_COLOR and TERM say. Texts are shown as they are: a registry's words may have
    brackets and colons, which rich would take as markup.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else _COLUMNS_ELSEWHERE
    return Console(width=width, markup=False, emoji=False)
