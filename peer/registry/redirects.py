"""Where an origin's redirects and challenges lead, and which headers may go there. Pure; both HTTP clients use it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from peer.registry.addresses import default_port, named_endpoint
from proto.errors import NameInvalid, UpstreamError, UpstreamKind
from proto.oci.upstreams import normalise_authority

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peer.registry.addresses import Endpoint
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

    # Header lines, in order.
    Lines = list[tuple[str, str]]

REDIRECTS_MAX: Final = 5
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
# Not sent to another server.
_CREDENTIALS: Final = frozenset({"authorization", "cookie"})
_URL: Final = re.compile(r"(https?)://([^/?#]+)([^#]*)", re.IGNORECASE)


def redirect_target(
    table: UpstreamTable,
    upstream: UpstreamConfig,
    endpoint: Endpoint,
    target: str,
    location: str,
    *,
    anonymous: bool,
) -> tuple[Endpoint, str]:
    """Where a Location header leads that `endpoint` sent for `target`. Path and query stay byte for byte, as they may
    be signed.

    Raises UpstreamError: denied if it may not be followed, content if it is no URL.
    """
    if location.startswith("/") and not location.startswith("//"):
        return endpoint, location.partition("#")[0]
    if _URL.fullmatch(location.partition("#")[0]) is None:
        try:
            location = urljoin(f"{endpoint.scheme}://{endpoint.authority}{target}", location)
        except ValueError as error:
            raise UpstreamError(f"origin {upstream.host} redirects to what is no URL", UpstreamKind.CONTENT) from error
    return url_target(table, upstream, location, anonymous=anonymous)


def url_target(table: UpstreamTable, upstream: UpstreamConfig, url: str, *, anonymous: bool) -> tuple[Endpoint, str]:
    """The same for a complete URL: of a redirect, or of a token service."""
    match = _URL.match(url)
    # The message leaves the URL out: a redirect's query is a credential.
    problem = UpstreamError(f"origin {upstream.host} named a URL that is not http(s)", UpstreamKind.CONTENT)
    if match is None or not url.isascii() or not url.isprintable() or " " in url:
        raise problem
    scheme = match[1].lower()
    try:
        authority = normalise_authority(match[2])
    except NameInvalid as error:
        raise problem from error
    target = match[3] if match[3].startswith("/") else f"/{match[3]}"
    authority = authority.removesuffix(f":{default_port(scheme)}")
    return named_endpoint(table, upstream, scheme, authority, anonymous=anonymous), target


def lines_for(endpoint: Endpoint, came_from: Endpoint, lines: Iterable[tuple[str, str]]) -> Lines:
    """The header lines that may follow a redirect from `came_from` to `endpoint`: no credentials to another server.

    A credential that was dropped does not come back on a later redirect.
    """
    if endpoint.same_server(came_from):
        return list(lines)
    return [(name, value) for name, value in lines if name.lower() not in _CREDENTIALS]
