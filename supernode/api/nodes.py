"""GET /v1/nodes: the peers connected now, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from proto.ids import short_peer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proto.ids import PeerId
    from supernode.api.parts import ApiParts
    from supernode.control.node_registry import Quarantine
    from supernode.control.peer_session import PeerSession


async def nodes(parts: ApiParts, _: web.Request) -> web.Response:
    """As JSON; `node` is the number that the log, the event log and its stories use."""
    quarantined = parts.nodes.quarantined
    return web.json_response({"nodes": [_node(session, quarantined) for session in parts.nodes]})


def _node(session: PeerSession, quarantined: Mapping[PeerId, Quarantine]) -> dict[str, Any]:
    quarantine = quarantined.get(session.info.peer)
    return {
        "node": session.node,
        "peer": short_peer(session.info.peer),
        "address": session.info.address,
        "zone": session.info.zone,
        "agent": session.info.agent,
        "blobs_wanted": len(session.wanting),
        "blobs_announced": len(session.announced),
        "quarantine": quarantine.reason if quarantine is not None else None,
    }
