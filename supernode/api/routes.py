"""Every path of the supernode's HTTP API, and what answers it. Who may ask is in api.access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.runtime.http_api import COMMON_ROUTES
from supernode.api import preheat_provider
from supernode.api.check import check
from supernode.api.console import events as console_events
from supernode.api.console import login, logout, page, snapshot, to_page
from supernode.api.events import again, drop, events, scan
from supernode.api.jobs import cancel, job, jobs, submit
from supernode.api.membership import authorities, join, renew
from supernode.api.nodes import nodes
from supernode.api.notifications import kraken, notified
from supernode.api.openapi import openapi
from supernode.api.sessions import session
from supernode.api.status import status
from supernode.api.story import story

if TYPE_CHECKING:
    from proto.runtime.http_api import Route
    from supernode.api.parts import ApiParts

ROUTES: Final[tuple[Route[ApiParts], ...]] = (
    *COMMON_ROUTES,
    ("/ui", to_page),
    ("/ui/", page),
    ("/ui/{file}", page),
    ("/_ping", preheat_provider.health),
    ("/api/v1/events", events),
    ("/api/v1/jobs", jobs),
    ("/api/v1/jobs/{number}", job),
    ("/api/v1/openapi.json", openapi),
    ("/health", preheat_provider.health),
    ("/healthy", preheat_provider.health),
    ("/oapi/v1/jobs/{number}", preheat_provider.job_2),
    ("/preheats/{number}", preheat_provider.job_1),
    ("/v1/ca", authorities),
    ("/v1/check", check),
    ("/v1/console", snapshot),
    ("/v1/console/events", console_events),
    ("/v1/nodes", nodes),
    ("/v1/session", session),
    ("/v1/status", status),
    ("/v1/story", story),
)
# By POST.
CHANGES: Final[tuple[Route[ApiParts], ...]] = (
    ("/api/v1/events/again", again),
    ("/api/v1/events/drop", drop),
    ("/api/v1/events/scan", scan),
    ("/api/v1/jobs", submit),
    ("/ui/login", login),
    ("/ui/logout", logout),
    ("/api/v1/notifications", notified),
    ("/oapi/v1/jobs", preheat_provider.submit_2),
    ("/preheats", preheat_provider.submit_1),
    ("/registry/notifications", kraken),
    ("/v1/join", join),
    ("/v1/renew", renew),
)
# By DELETE.
REMOVALS: Final[tuple[Route[ApiParts], ...]] = (("/api/v1/jobs/{number}", cancel),)
