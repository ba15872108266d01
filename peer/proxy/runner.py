"""Runs the mirror: by which names it may be addressed, its own Server header, and what it says to no HTTP request.

What comes here was not understood as a request, or must not be answered at all; nothing of registries is known.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.errors import LayercastError
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal
from proto.runtime.http_server import NOT_UNDERSTOOD

if TYPE_CHECKING:
    from collections.abc import Collection

SERVER: Final = "layercast"
# What a browser's user typed, and what our own answers lead to.
_OWN_PAGES: Final = ("none", "same-origin")
_PORT: Final = re.compile(r":[0-9]*\Z")


class HostRefused(LayercastError):
    """The client believes to speak to somebody else, or was sent here by somebody else's page."""


def check_host(request: web.Request, names: Collection[str]) -> None:
    """Whether the client means us: loopback names, the very address that it reached, or a name of the operator's.

    A page on the open Internet can have its own name resolve to our address (DNS rebinding), and then reads what it
    likes; but it cannot send another name than its own. By our name it reads nothing, but could have us fetch what it
    likes; browsers tell whose page asks (Fetch Metadata), and no client of a registry does. Raises HostRefused.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN_PAGES:
        raise HostRefused("a page of another site may ask nothing of this mirror")
    host = request.headers.get("Host", "")
    if not is_own_name(request, host, names):
        name = _name_of(host)
        raise HostRefused(
            f"this mirror does not answer to the name {name[:80]!r}: add it to mirror_hosts if it is its own"
        )


def is_own_name(request: web.Request, host: str, names: Collection[str]) -> bool:
    """Whether HOST or HOST:PORT, as a client wrote it, is this mirror; see check_host."""
    name = _name_of(host)
    if name in ("", "localhost") or name.endswith(".localhost") or "*" in names:
        return True
    if name in (each.lower() for each in names):
        return True
    reached = request.transport.get_extra_info("sockname") if request.transport is not None else None
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    return address is not None and (address.is_loopback or bool(reached and address == _plain(str(reached[0]))))


def _name_of(host: str) -> str:
    return _PORT.sub("", host).strip("[]").rstrip(".").lower()


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def refuse_nonsense(status: int) -> web.Response:
    """To what is no HTTP request: as registries word their errors."""
    refusal = Refusal(status, "UNSUPPORTED", NOT_UNDERSTOOD)
    return web.Response(status=status, body=refusal.body, content_type=BODY_CONTENT_TYPE, headers={"Server": SERVER})


async def name_server(_: web.Request, response: web.StreamResponse) -> None:
    """A signal of the application: whose answer it is. An origin's own name is not passed on."""
    response.headers["Server"] = SERVER
