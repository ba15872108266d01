"""What the console's handlers have. Made once, by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supernode.console.feed import Feed
    from supernode.console.logins import Logins
    from supernode.console.pages import Page


@dataclass(frozen=True, slots=True)
class Console:
    """See each."""

    pages: Mapping[str, Page]
    feed: Feed
    logins: Logins
