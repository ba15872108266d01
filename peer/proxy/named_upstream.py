"""Requests that name their registry as a proxy's clients do: by the tunnel that they came through, or a whole URL.

Which of them are followed is peer.proxy.forward_policy's to say; how they are answered, the mirror's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proto.errors import NameInvalid, RemoteError
from proto.oci.upstreams import normalise_authority

if TYPE_CHECKING:
    from proto.oci.upstreams import UpstreamConfig

_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Misdirected(RemoteError):
    """A request in a tunnel that is for another host than the tunnel."""


@dataclass(frozen=True, slots=True)
class NamedUpstream:
    """The registry that a request was sent to, and what was asked there: `target` is path and query."""

    upstream: UpstreamConfig
    target: str


# Set where a request has one.
NAMED: Final = web.RequestKey("named", NamedUpstream)


def split_absolute(target: str) -> tuple[str, str] | None:
    """HOST[:PORT], and path with query, of a request whose target is a whole URL; None for any other."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    authority, rest = match[2].removesuffix(_DEFAULT_PORTS[match[1].lower()]), match[3]
    return authority, rest if rest.startswith("/") else f"/{rest}"


def check_inside(host: str | None, authority: str) -> None:
    """Whether the Host of a request in a tunnel is that of the tunnel. Raises Misdirected."""
    try:
        if host is not None and _without_port(normalise_authority(host)) == _without_port(authority):
            return
    except NameInvalid:
        pass
    raise Misdirected(f"this connection is for {authority}, and the request for another host")


def _without_port(authority: str) -> str:
    return authority.removesuffix(":443")
