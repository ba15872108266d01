"""GET /v1/status: the supernode and its newest swarms, for people and `layercast status`; a summary for strangers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proto.ids import short_peer
from supernode.api.access import Rank, caller_of

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts
    from supernode.control.swarm_registry import OpenSwarm

# The newest are listed; the count is always whole.
_SWARMS_MAX: Final = 200


async def status(parts: ApiParts, request: web.Request) -> web.Response:
    """As JSON. `membership` is "open" where anybody may join, else "tokens"."""
    summary = {"ready": not parts.health.problem, "membership": "open" if parts.members is None else "tokens"}
    if caller_of(request).rank is Rank.STRANGER:
        return web.json_response(summary)
    swarms = list(parts.swarms)
    return web.json_response(
        {
            "epoch": parts.epoch,
            "uptime_s": round(time.monotonic() - parts.started_s, 1),
            **summary,
            "sessions": len(parts.nodes),
            "quarantined": [
                {
                    "peer": short_peer(peer),
                    "reason": quarantine.reason,
                    "ends_in_s": round(quarantine.until_s - time.monotonic(), 1),
                }
                for peer, quarantine in parts.nodes.quarantined.items()
            ],
            "seed_unreachable": [
                {"address": address, "for_s": round(time.monotonic() - since_s, 1)}
                for address, since_s in parts.seed_reach.since_s().items()
            ],
            "swarms_open": len(swarms),
            "swarms": [_swarm(swarm) for swarm in reversed(swarms[-_SWARMS_MAX:])],
        }
    )


def _swarm(swarm: OpenSwarm) -> dict[str, Any]:
    return {
        "digest": str(swarm.digest),
        "size_bytes": swarm.layout.size_bytes,
        "pieces": swarm.layout.count,
        "seed_pieces": swarm.seed_held.bit_count(),
        "members": len(swarm.members),
        "wanted_by": swarm.wanted_by,
        "vouched": swarm.vouched,
        "origin": swarm.origin_state or "idle",
    }
