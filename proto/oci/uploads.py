"""The push side of the distribution API: what of an upload's URLs a mirror has to word anew. Parsing and printing only.

A client goes on where `Location` sends it, and names repositories as it names them here; the origin knows neither our
address nor the way in which a request named its registry.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote

from proto.errors import NameInvalid
from proto.oci.routes import ForeignRoute, NamedBy, RegistryRequest, looks_like_host
from proto.oci.upstreams import normalise_upstream

_URL: Final = re.compile(r"(?:(https?):)?//([^/?#]*)([^#]*)", re.IGNORECASE)
_DEFAULT_PORT: Final = re.compile(r":(?:443|80)\Z")


def rewrite_location(location: str, request: RegistryRequest, origin_url: str) -> str:
    """Make an origin's `Location` lead back to the mirror that was asked, named as this request named its registry.

    `origin_url` is scheme and authority of the origin. One that leads to another server is left alone: the client goes
    there by itself. One that leads out of the API on the origin's own server is made to lead there.
    """
    rest = location
    if match := _URL.fullmatch(location):
        if not _is_origin(match[2], request, origin_url):
            return location
        rest = match[3] if match[3].startswith("/") else f"/{match[3]}"
    elif not location.startswith("/"):
        return location  # relative to what was asked
    if request.named_by is NamedBy.CONNECTION:
        return rest
    if not rest.startswith("/v2/"):
        return f"{origin_url}{rest}"
    path, mark, query = rest.partition("?")
    if request.named_by.in_path:
        path = f"/v2/{request.upstream}/{path.removeprefix('/v2/')}"
    if request.named_by.in_query:
        query, mark = f"{query}&ns={quote(request.upstream)}" if query else f"ns={quote(request.upstream)}", "?"
    return f"{path}{mark}{query}"


def origin_query(request: RegistryRequest) -> str:
    """The query for the origin: a mount's `from` without the registry's name, as the repository in the path.

    A mount from a repository of another registry is none: then the client is asked to send the blob.
    """
    if isinstance(request.route, ForeignRoute) or request.named_by is NamedBy.CONNECTION:
        return request.query
    fields = request.query.split("&") if request.query else []
    kept = []
    for field in fields:
        if field.partition("=")[0] != "from":
            kept.append(field)
            continue
        repository = _own_repository(dict(parse_qsl(field, keep_blank_values=True)).get("from", ""), request)
        if repository is None:
            return "&".join(field for field in fields if field.partition("=")[0] not in ("from", "mount"))
        kept.append(f"from={quote(repository, safe='/')}")
    return "&".join(kept)


def _own_repository(repository: str, request: RegistryRequest) -> str | None:
    """Without the registry in front; None where that is another one."""
    first, slash, rest = repository.partition("/")
    if not slash or not looks_like_host(first):
        return repository
    try:
        return rest if normalise_upstream(first) == request.upstream else None
    except NameInvalid:
        return None


def _is_origin(authority: str, request: RegistryRequest, origin_url: str) -> bool:
    """Whatever the scheme: a registry behind a proxy that does its TLS often names the wrong one."""
    named = _DEFAULT_PORT.sub("", authority.lower())
    return named in (_DEFAULT_PORT.sub("", origin_url.partition("://")[2]), _DEFAULT_PORT.sub("", request.upstream))
