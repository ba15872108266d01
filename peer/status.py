"""The peer's HTTP API for operators: what is answered beside the mirror, on --listen or --status-listen.

To add a route, write its handler here and add its line to ROUTES. It says how things are and changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proto.runtime.http_api import COMMON_ROUTES, Health, ServiceParts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proto.runtime.http_api import Route


class PeerHealth(Health):
    """Ready or why not; and how it stands with the supernode, without which a node is ready too."""

    def __init__(self, supernode: str | None) -> None:
        super().__init__()
        self._supernode = supernode
        self.connected: Callable[[], bool] = lambda: False
        # Why not, if not.
        self.problem_of_session: Callable[[], str] = lambda: ""

    def supernode_text(self) -> str:
        """One word or a short phrase."""
        if self._supernode is None:
            return "none configured"
        return "connected" if self.connected() else "not connected"

    def details(self) -> str:
        if self.connected():
            return f"supernode: {self.supernode_text()}\n"
        problem = self.problem_of_session()
        why = f"why: {problem}\n" if problem else ""
        return f"supernode: {self.supernode_text()}: pulls go on from known peers and from upstream\n{why}"


@dataclass(frozen=True, slots=True)
class PeerParts(ServiceParts):
    """`facts` are what the node knows of itself; from a thread, since disks and folders are asked."""

    facts: Callable[[], Mapping[str, Any]]


async def status(parts: PeerParts, _: web.Request) -> web.Response:
    """GET /v1/status: as JSON, for `layercast status` and `layercast doctor`."""
    return web.json_response(await asyncio.to_thread(parts.facts))


ROUTES: Final[tuple[Route[PeerParts], ...]] = (*COMMON_ROUTES, ("/v1/status", status))
