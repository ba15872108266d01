"""GET /v1/check: what a node cannot find out by itself, for `layercast doctor`; a member asks of itself alone.

Whether others reach its upload port (tried from here, once), which logins of the operator fail, which registries limit
us, and the releases. It changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proto import VERSION
from proto.config.values import parse_host_port
from proto.wire.handshake import PROTOCOL_VERSION
from supernode.api.access import caller_of

if TYPE_CHECKING:
    from proto.ids import PeerId
    from supernode.api.parts import ApiParts
    from supernode.control.peer_session import PeerSession

# A healthy node answers in milliseconds; a firewall that drops says nothing.
_REACH_S: Final = 3.0
# Of a credential helper.
_LOGINS_S: Final = 10.0


async def check(parts: ApiParts, request: web.Request) -> web.Response:
    """As JSON. An operator names the node by `?peer=` and its id in hex."""
    async with parts.checks:
        session = _session(parts, request)
        reached, logins = await asyncio.gather(_reach(session), _logins(parts))
    return web.json_response(
        {
            "version": VERSION,
            "protocol_version": PROTOCOL_VERSION,
            **reached,
            "logins": logins,
            "limited": parts.limited(),
        }
    )


def _session(parts: ApiParts, request: web.Request) -> PeerSession | None:
    member = caller_of(request).member
    peer: PeerId | None = None
    if member is not None:
        peer = member.peer
    else:
        with contextlib.suppress(ValueError):
            named = bytes.fromhex(request.query.get("peer", ""))
            peer = next((each.info.peer for each in parts.nodes if each.info.peer == named), None)
    return parts.nodes.session_of(peer) if peer is not None else None


async def _reach(session: PeerSession | None) -> dict[str, Any]:
    """`unreached` is empty where the node is reached, or nobody is sent there."""
    if session is None:
        return {"connected": False, "address": "", "address_refused": "", "unreached": ""}
    info, unreached = session.info, ""
    if not info.address_refused:
        address = parse_host_port(info.address)
        try:
            async with asyncio.timeout(_REACH_S):
                _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
        except TimeoutError:
            unreached = f"no answer within {_REACH_S:g} s"
        except OSError as error:
            unreached = error.strerror or str(error)
    return {
        "connected": True,
        "address": info.address,
        "address_refused": info.address_refused,
        "unreached": unreached,
    }


async def _logins(parts: ApiParts) -> dict[str, str]:
    """By upstream: what is wrong with the operator's login."""
    try:
        async with asyncio.timeout(_LOGINS_S):
            return await asyncio.to_thread(parts.login_problems)
    except TimeoutError:
        return {"credentials": f"asking the helpers takes more than {_LOGINS_S:g} s"}
