"""GET /v1/nodes: the peers connected now, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from supernode.console.summary import node_row

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts


async def nodes(parts: ApiParts, _: web.Request) -> web.Response:
    """As JSON."""
    quarantined = parts.nodes.quarantined
    rows = [node_row(session, quarantined, parts.seed_reach) for session in parts.nodes]
    return web.json_response({"nodes": rows})
