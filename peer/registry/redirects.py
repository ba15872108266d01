"""Where an origin's redirects and challenges lead, and which headers may go there. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from peer.registry.addresses import default_port, named_endpoint
from proto.errors import NameInvalid, UpstreamError, UpstreamKind
from proto.oci.routes import HOP_HEADER
from proto.oci.upstreams import normalise_authority

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peer.registry.addresses import Endpoint
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

    # Header lines, in order.
    Lines = list[tuple[str, str]]

REDIRECTS_MAX: Final = 5
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
# All that goes to another server than the one a client meant: credentials have many names (Private-Token, ...).
_FOR_ANY_SERVER: Final = frozenset({"accept", "accept-encoding", "range", "user-agent", HOP_HEADER.lower()})
_URL: Final = re.compile(r"(https?)://([^/?#]+)([^#]*)", re.IGNORECASE)
# What some registries leave as it is in a Location, and every client encodes.
_UNENCODED: Final = re.compile(r"[ \x80-\xff]")


def redirect_target(
    table: UpstreamTable,
    upstream: UpstreamConfig,
    endpoint: Endpoint,
    target: str,
    location: str,
    *,
    anonymous: bool,
) -> tuple[Endpoint, str]:
    """Where a Location header leads that `endpoint` sent for `target`; `location` has a character for each byte of it.

    Path and query stay byte for byte, as they may be signed, but for spaces and what is not ASCII. Raises
    UpstreamError: denied if it may not be followed, content if it is no URL.
    """
    location = _UNENCODED.sub(lambda byte: f"%{ord(byte[0]):02X}", location.strip()).partition("#")[0]
    if not location.startswith("/") or location.startswith("//"):
        if _URL.fullmatch(location) is None:
            try:
                location = urljoin(f"{endpoint.scheme}://{endpoint.authority}{target}", location)
            except ValueError as error:
                problem = f"origin {upstream.host} redirects to what is no URL"
                raise UpstreamError(problem, UpstreamKind.CONTENT) from error
        return url_target(table, upstream, location, anonymous=anonymous)
    return endpoint, _printable(upstream, location)


def url_target(table: UpstreamTable, upstream: UpstreamConfig, url: str, *, anonymous: bool) -> tuple[Endpoint, str]:
    """The same for a complete URL: of a redirect, or of a token service."""
    match = _URL.match(_printable(upstream, url))
    if match is None:
        raise _no_url(upstream)
    scheme = match[1].lower()
    try:
        authority = normalise_authority(match[2])
    except NameInvalid as error:
        raise _no_url(upstream) from error
    target = match[3] if match[3].startswith("/") else f"/{match[3]}"
    authority = authority.removesuffix(f":{default_port(scheme)}")
    return named_endpoint(table, upstream, scheme, authority, anonymous=anonymous), target


def _printable(upstream: UpstreamConfig, url: str) -> str:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _no_url(upstream)
    return url


def _no_url(upstream: UpstreamConfig) -> UpstreamError:
    # The message leaves the URL out: a redirect's query is a credential.
    return UpstreamError(f"origin {upstream.host} named a URL that is not http(s)", UpstreamKind.CONTENT)


def lines_for(endpoint: Endpoint, came_from: Endpoint, lines: Iterable[tuple[str, str]]) -> Lines:
    """The header lines that may follow a redirect from `came_from` to `endpoint`.

    What was dropped at another server does not come back on a later redirect.
    """
    if endpoint.same_server(came_from):
        return list(lines)
    return [(name, value) for name, value in lines if name.lower() in _FOR_ANY_SERVER]
