"""/healthz and /metrics: what an operator's probes and scrapers read. It says how things are and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.metrics import Metrics


class Health:
    """Ready or why not; and how it stands with the supernode, without which a node is ready too."""

    def __init__(self, supernode: str | None) -> None:
        self._supernode = supernode
        self._problem = "starting"
        self.connected: Callable[[], bool] = lambda: False

    def ready(self) -> None:
        """From now on 200."""
        self._problem = ""

    def stopping(self) -> None:
        """From now on 503."""
        self._problem = "stopping"

    def supernode_text(self) -> str:
        """One word or a short phrase."""
        if self._supernode is None:
            return "none configured"
        return "connected" if self.connected() else "not connected"

    def answer(self) -> tuple[int, str]:
        """(status, body)."""
        status, first = (503, self._problem) if self._problem else (200, "ready")
        note = "" if self.connected() else ": pulls go on from known peers and from upstream"
        return status, f"{first}\nsupernode: {self.supernode_text()}{note}\n"


def add_status(app: web.Application, health: Health, metrics: Metrics) -> None:
    """Answer /healthz and /metrics in this application."""

    async def healthz(_: web.Request) -> web.Response:
        status, body = health.answer()
        return web.Response(status=status, text=body)

    async def scrape(_: web.Request) -> web.Response:
        response = web.Response(body=metrics.text())
        response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        return response

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", scrape)
