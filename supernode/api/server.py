"""The supernode's HTTP face: /healthz, /metrics, a read-only /v1/status, and the sessions' WebSocket /v1/session.

Nothing here changes anything, no answer names a credential, and no payload passes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from supernode.session.hello import SessionEnd
from supernode.session.session import Limits, SessionOwner, WebSocketSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.control.driver import Driver
    from supernode.metrics import Metrics

# The status lists so many swarms, the newest first; the count is always whole.
STATUS_SWARMS_MAX: Final = 200


class Health(Protocol):
    """Why the service is not ready, or nothing."""

    def __call__(self) -> str: ...


class Api:
    """Builds the application. One a supernode."""

    def __init__(
        self,
        *,
        driver: Driver,
        owner: SessionOwner,
        metrics: Metrics,
        health: Health,
        scrape: Callable[[], None],
        supernode_key: bytes,
        epoch: int,
        limits: Limits,
        agent: str,
        transport: str,
    ) -> None:
        """`scrape` brings gauges up to date before /metrics is written."""
        self._driver = driver
        self._owner = owner
        self._metrics = metrics
        self._health = health
        self._scrape = scrape
        self._key = supernode_key
        self._epoch = epoch
        self._limits = limits
        self._agent = agent
        self._transport = transport
        self._started_s = time.monotonic()
        self._sockets = 0

    def build(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/session", self._session)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:
        reason = self._health()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def _metrics_text(self, request: web.Request) -> web.Response:
        self._scrape()
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _status(self, request: web.Request) -> web.Response:
        swarms = list(self._driver.swarms)
        return web.json_response(
            {
                "epoch": self._epoch,
                "uptime_s": round(time.monotonic() - self._started_s, 1),
                "ready": not self._health(),
                "sessions": len(self._driver.nodes),
                "swarms_open": len(swarms),
                "swarms": [
                    {
                        "digest": str(swarm.digest),
                        "size_bytes": swarm.layout.size_bytes,
                        "pieces": swarm.layout.count,
                        "seed_pieces": swarm.seed_held.bit_count(),
                        "members": len(swarm.members),
                        "wanted_by": swarm.wanted_by,
                        "vouched": swarm.vouched,
                        "origin": swarm.origin_state or "idle",
                    }
                    for swarm in reversed(swarms[-STATUS_SWARMS_MAX:])
                ],
            }
        )

    async def _session(self, request: web.Request) -> web.StreamResponse:
        reason = self._health()
        if reason:
            return web.Response(text=f"{reason}\n", status=503)
        refusal = None
        if self._sockets >= self._limits.sessions_max:
            refusal = SessionEnd("limit", f"{self._limits.sessions_max} sessions are open already")
        session = WebSocketSession(
            self._owner, self._key, self._epoch, self._limits, self._agent, self._metrics, self._transport
        )
        self._sockets += 1
        try:
            return await session.run(request, refusal)
        finally:
            self._sockets -= 1
