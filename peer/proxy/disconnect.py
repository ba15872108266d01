"""Waiting on a client's behalf, and noticing when nobody waits any more. Knows nothing of what is waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from peer.proxy.client_socket import ClientGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

T = TypeVar("T")


def hung_up(request: web.BaseRequest) -> bool:
    """Whether the client of this request has closed its connection."""
    return request.transport is None or request.transport.is_closing()


async def attended(
    request: web.BaseRequest,
    work: asyncio.Future[T],
    stop: Callable[[], object],
    *,
    check_s: float,
    discard: Callable[[T], object] | None = None,
) -> T:
    """The result of `work`. When the client hangs up, or this wait is cancelled, `stop` is called to end the work.

    Never returns while the work still runs: it may be using the client's socket. A result that comes too late goes
    to `discard`. Raises ClientGone, and what the work raises.
    """
    gone = False
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=check_s)
            if not gone and not work.done() and hung_up(request):
                gone = True
                stop()
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({work})
        _drop(work, discard)
        raise
    if gone:
        _drop(work, discard)
        raise ClientGone("client hung up")
    return work.result()


def _drop(work: asyncio.Future[T], discard: Callable[[T], object] | None) -> None:
    if not work.cancelled() and work.exception() is None and discard is not None:
        discard(work.result())
