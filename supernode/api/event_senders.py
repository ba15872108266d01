"""What the routes of registries and of Harbor share: who may send, and a body in time and within its size."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from proto.runtime.logs import LogLimit
from supernode.api.access import refused
from supernode.registry_events.notice import EventUnreadable

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

logger = logging.getLogger(__name__)

# An event has 2 KiB, with `includereferences` some hundred more for each layer.
BODY_BYTES_MAX: Final = 1 << 20
# Harbor gives an answer 3 s.
_BODY_S: Final = 5.0
_NOBODY: Final = "no registry may send events here: set event_token_file, or event_senders, at the supernode"
_WRONG: Final = "send the secret of the supernode's event_token_file as Authorization"
_refusals = LogLimit()


def refusal_of_sender(parts: ApiParts, request: web.Request) -> web.Response | None:
    """The answer to one who may not send; None to one who may."""
    senders = parts.events.senders()
    if not senders.exist:
        return refused(404, _NOBODY)
    if senders.has_token(request.headers.get(hdrs.AUTHORIZATION, "")):
        return None
    if senders.has_address(request.remote or ""):
        # A web page that somebody there looks at can send no JSON here.
        is_json = request.content_type.endswith(("/json", "+json")) or request.method == "GET"
        return None if is_json else refused(415, "send it as Content-Type: application/json")
    _refusals.log(logger, logging.WARNING, "event_sender_refused address=%s path=%s", request.remote, request.path)
    return refused(401, _WRONG)


async def document_of(parts: ApiParts, request: web.Request) -> object:
    """Raises EventUnreadable for what is no JSON or too long, and HTTPRequestTimeout."""
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_S), parts.events.bodies:
            async for part in request.content.iter_any():
                content += part
                if len(content) > BODY_BYTES_MAX:
                    raise EventUnreadable(f"more than {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise EventUnreadable("no JSON") from None
