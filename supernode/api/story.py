"""GET /v1/story: what happened to one piece of a live swarm, as the scheduler remembers it. It changes nothing."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.ids import short_peer
from supernode.api.access import refused

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts
    from supernode.control.open_swarm import OpenSwarm

# Of a digest's hex, as lists show it; more digits name a blob among more.
_DIGITS_MIN: Final = 6
_NODE: Final = re.compile(r"\b(?:peer|at|from|to) (\d{1,9})\b")


async def story(parts: ApiParts, request: web.Request) -> web.Response:
    """JSON; `?digest=` is a live swarm's or its first digits, `?piece=` a number. The scheduler's words name nodes by
    their numbers; `nodes` has the names of those that are connected.
    """
    digest, piece = request.query.get("digest", ""), request.query.get("piece", "")
    found = _swarms(parts, digest.lower().removeprefix("sha256:"))
    if len(found) != 1:
        return refused(404, "several live swarms begin so: give more digits" if found else "no live swarm of that blob")
    swarm, number = found[0], int(piece) if piece.isascii() and piece.isdigit() and len(piece) < 10 else -1
    if not 0 <= number < swarm.layout.count:
        return refused(404, f"the blob has pieces 0 to {swarm.layout.count - 1}")
    now_s, happenings, numbers = time.monotonic(), [], set[int]()
    for line in parts.console.story(swarm.number, number):
        at, _, text = line.partition(" ")
        numbers.update(int(each) for each in _NODE.findall(text))
        happenings.append({"ago_s": round(max(0.0, now_s - float(at)), 3), "text": text})
    sessions = (parts.nodes.session(each) for each in sorted(numbers))
    return web.json_response(
        {
            "digest": str(swarm.digest),
            "swarm": swarm.number,
            "piece": number,
            "pieces": swarm.layout.count,
            "held_by": parts.console.copies(swarm.number)[number : number + 1],
            "happenings": happenings,
            "nodes": {
                str(each.node): f"{short_peer(each.info.peer)} {each.info.zone}".strip()
                for each in sessions
                if each is not None
            },
        }
    )


def _swarms(parts: ApiParts, digits: str) -> list[OpenSwarm]:
    if len(digits) < _DIGITS_MIN:
        return []
    return [swarm for swarm in parts.swarms if str(swarm.digest).partition(":")[2].startswith(digits)]
