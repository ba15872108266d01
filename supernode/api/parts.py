"""What the handlers of the HTTP API may use of a supernode. Made once, by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.runtime.http_api import ServiceParts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from supernode.control.node_registry import NodeRegistry
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.membership.members import Members


@dataclass(frozen=True, slots=True)
class ApiParts(ServiceParts):
    """`started_s` is on the monotonic clock."""

    nodes: NodeRegistry
    swarms: SwarmRegistry
    seed_reach: SeedReach
    # Serves one session's WebSocket until it ends.
    serve_session: Callable[[web.Request], Awaitable[web.StreamResponse]]
    epoch: int
    started_s: float
    # None with --open.
    members: Members | None
    # Counts one that asked for a certificate, by what came of it.
    count_join: Callable[[str], None]
