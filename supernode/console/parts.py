"""What the console's handlers have. Made once, by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supernode.console.feed import Feed
    from supernode.console.logins import Logins
    from supernode.console.pages import Page


@dataclass(frozen=True, slots=True)
class Console:
    """See each; `story` and `copies` are the scheduler's."""

    pages: Mapping[str, Page]
    feed: Feed
    logins: Logins
    story: Callable[[int, int], list[str]]
    copies: Callable[[int], list[int]]
