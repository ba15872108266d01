"""Work that goes on at once on the event loop and ends together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run all; the first that raises ends the others, and what it raised is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
