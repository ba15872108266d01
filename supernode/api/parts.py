"""What the handlers of the HTTP API may use of a supernode. Made once, by the composition root."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.runtime.http_api import ServiceParts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from supernode.console.parts import Console
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.jobs.runner import JobRunner
    from supernode.membership.members import Members
    from supernode.registry_events.service import RegistryEvents


_CHECKS_AT_ONCE: Final = 8


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
    # Blocking: what is wrong with the operator's logins, by upstream.
    login_problems: Callable[[], dict[str, str]]
    # For how many seconds upstreams want no questions.
    limited: Callable[[], Mapping[str, float]]
    jobs: JobRunner
    console: Console
    events: RegistryEvents
    checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CHECKS_AT_ONCE))
