"""What the HTTP APIs of both services share: tables of routes, /healthz and /metrics. Reading changes nothing."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from proto.runtime.metrics import ServiceMetrics

P = TypeVar("P")
# A path, and what answers a request for it, given the parts of the service that its handlers may use.
Route: TypeAlias = "tuple[str, Callable[[P, web.Request], Awaitable[web.StreamResponse]]]"


class Health:
    """Whether the service is ready to work, or why not."""

    def __init__(self) -> None:
        # Empty: ready.
        self.problem = "starting"

    def ready(self) -> None:
        """From now on 200."""
        self.problem = ""

    def not_ready(self, reason: str) -> None:
        """From now on 503."""
        self.problem = reason

    def details(self) -> str:
        """The lines that follow the first."""
        return ""

    def answer(self) -> tuple[int, str]:
        """(status, body)."""
        return 503 if self.problem else 200, f"{self.problem or 'ready'}\n{self.details()}"


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What handlers may use of a service; one with more routes derives its own."""

    health: Health
    metrics: ServiceMetrics


async def healthz(parts: ServiceParts, _: web.Request) -> web.Response:
    """For probes: 200, or 503 with the reason."""
    status, body = parts.health.answer()
    return web.Response(status=status, text=body)


async def metrics(parts: ServiceParts, _: web.Request) -> web.Response:
    """For Prometheus."""
    response = web.Response(body=parts.metrics.text())
    response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
    return response


COMMON_ROUTES: Final[tuple[Route[ServiceParts], ...]] = (("/healthz", healthz), ("/metrics", metrics))


def add_routes(
    app: web.Application,
    routes: Iterable[Route[P]],
    parts: P,
    *,
    changes: Iterable[Route[P]] = (),
    removals: Iterable[Route[P]] = (),
) -> None:
    """Answer a GET of these paths in this application, a POST of `changes`, and a DELETE of `removals`."""
    for path, handler in routes:
        app.router.add_get(path, functools.partial(handler, parts))
    for path, handler in changes:
        app.router.add_post(path, functools.partial(handler, parts))
    for path, handler in removals:
        app.router.add_delete(path, functools.partial(handler, parts))
