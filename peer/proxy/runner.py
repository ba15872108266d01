"""Runs the mirror: by which names it may be addressed, its own Server header, and what it says to no HTTP request.

What comes here was not understood as a request, or must not be answered at all; nothing of registries is known.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.errors import LayercastError
from proto.oci.registry_errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger(__name__)

SERVER: Final = "layercast"


class HostRefused(LayercastError):
    """The client believes to speak to somebody else."""


def check_host(request: web.Request, names: Collection[str]) -> None:
    """Whether the client means us: loopback names, the very address that it reached, or a name of the operator's.

    A page on the open Internet can have its own name resolve to our address (DNS rebinding), and then reads what it
    likes; but it cannot send another name than its own. Raises HostRefused.
    """
    host = request.headers.get("Host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.strip("[]").rstrip(".").lower()
    if name in ("", "localhost") or name.endswith(".localhost") or "*" in names:
        return
    if name in (each.lower() for each in names):
        return
    reached = request.transport.get_extra_info("sockname") if request.transport is not None else None
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if address is not None and (address.is_loopback or (reached and address == _plain(str(reached[0])))):
        return
    raise HostRefused(f"this mirror does not answer to the name {name[:80]!r}: add it to mirror_hosts if it is its own")


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


class _Protocol(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp. What cannot be parsed is the client's doing: one line, and no trace."""
        if status == 500:
            return super().handle_error(request, status, exc, message)
        logger.info("request_not_understood status=%d reason=%s", status, type(exc).__name__)
        refusal = Refusal(status, "UNSUPPORTED", "this is no HTTP request that can be answered")
        response = web.Response(status=status, body=refusal.body, content_type="application/json")
        response.headers["Server"] = SERVER
        response.force_close()
        return response


class MirrorRunner(web.AppRunner):
    """An AppRunner whose connections answer errors so."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


async def name_server(_: web.Request, response: web.StreamResponse) -> None:
    """A signal of the application: whose answer it is. An origin's own name is not passed on."""
    response.headers["Server"] = SERVER
