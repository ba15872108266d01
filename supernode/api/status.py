"""GET /v1/status: the supernode and its newest swarms, for people and `layercast status`; a summary for strangers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from supernode.api.access import Rank, caller_of
from supernode.console.summary import quarantine_rows, swarm_row, unreached_rows

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

# The newest are listed; the count is always whole.
_SWARMS_MAX: Final = 200


async def status(parts: ApiParts, request: web.Request) -> web.Response:
    """As JSON. `membership` is "open" where anybody may join, else "tokens"."""
    summary = {"ready": not parts.health.problem, "membership": "open" if parts.members is None else "tokens"}
    if caller_of(request).rank is Rank.STRANGER:
        return web.json_response(summary)
    swarms, now_s = list(parts.swarms), time.monotonic()
    return web.json_response(
        {
            "epoch": parts.epoch,
            "uptime_s": round(now_s - parts.started_s, 1),
            **summary,
            "sessions": len(parts.nodes),
            "quarantined": quarantine_rows(parts.nodes, now_s),
            "seed_unreachable": unreached_rows(parts.seed_reach, now_s),
            "swarms_open": len(swarms),
            "swarms": [swarm_row(swarm) for swarm in reversed(swarms[-_SWARMS_MAX:])],
        }
    )
