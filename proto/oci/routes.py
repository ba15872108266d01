"""The distribution API as names: `/v2/` paths, repositories, tags, and whose they are.

Parsing and printing only; nothing here knows a socket. Paths are routed by the last `/blobs/`, `/manifests/`,
`/tags/` or `/referrers/`, because a repository may itself contain those words. What a client sent is never
passed on: the path for the origin is printed again from the parsed parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, quote, unquote

from proto.errors import DigestInvalid, NameInvalid, PathUnknown
from proto.ids import Digest
from proto.oci.upstreams import normalise_upstream

# Sent with every request to an origin. A proxy of ours refuses what carries it: it would be calling itself.
HOP_HEADER = "Layercast-Hop"
# As long as the longest header line that registries and their tokens are known to need, with room.
HEADER_LIMIT_BYTES = 64 * 1024

# The limit that registries and clients keep for a name, host included.
REPOSITORY_LENGTH_MAX = 255
# Longer than any valid path: 255 for the name, 135 for a sha512 digest, each byte at most three when encoded.
PATH_LENGTH_MAX = 2048
QUERY_LENGTH_MAX = 8192

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# What RFC 3986 allows within a path without encoding.
_PATH_SAFE = "/:@!$&'()*+,;=~"
_PRINTABLE = re.compile(r"/[!-~]*")
_MARKER = re.compile(r".*/(blobs|manifests|tags|referrers)/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ping:
    """`/v2/`: is this a registry, and does it want a login. `path`, as of all routes, is what an origin is asked."""

    @property
    def path(self) -> str:
        return "/v2/"


@dataclass(frozen=True, slots=True)
class BlobRoute:
    """`/v2/REPOSITORY/blobs/DIGEST`."""

    repository: str
    digest: Digest

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class ManifestRoute:
    """`/v2/REPOSITORY/manifests/REFERENCE`; the reference is a tag (str) or a Digest."""

    repository: str
    reference: str | Digest

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.reference}"


@dataclass(frozen=True, slots=True)
class TagsRoute:
    """`/v2/REPOSITORY/tags/list`."""

    repository: str

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/tags/list"


@dataclass(frozen=True, slots=True)
class ReferrersRoute:
    """`/v2/REPOSITORY/referrers/DIGEST`."""

    repository: str
    digest: Digest

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/referrers/{self.digest}"


@dataclass(frozen=True, slots=True)
class CatalogRoute:
    """`/v2/_catalog`: the registry's repositories, as far as it tells them."""

    @property
    def path(self) -> str:
        return "/v2/_catalog"


@dataclass(frozen=True, slots=True)
class OtherRoute:
    """A reference that is no tag and no digest: what is to be said of it is the registry's to say."""

    repository: str
    kind: str
    reference: str

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/{self.kind}/{quote(self.reference, safe=':')}"


@dataclass(frozen=True, slots=True)
class UploadRoute:
    """`/v2/REPOSITORY/blobs/uploads/`, and behind it the session that the registry named."""

    repository: str
    session: str

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/{quote(self.session, safe=_PATH_SAFE)}"


@dataclass(frozen=True, slots=True)
class ForeignRoute:
    """No part of this API, asked of a registry in its own name: its token service, its pages. As the client sent it."""

    path: str


Route = (
    Ping
    | BlobRoute
    | ManifestRoute
    | TagsRoute
    | ReferrersRoute
    | CatalogRoute
    | OtherRoute
    | UploadRoute
    | ForeignRoute
)


class NamedBy(Enum):
    """How a request said which registry it means: by more than one of these it means the same one."""

    NS = "ns"
    NS_AND_PREFIX = "ns and prefix"
    HEADER = "header"
    PREFIX = "prefix"
    DEFAULT = "default"
    CONNECTION = "connection"

    @property
    def in_path(self) -> bool:
        """Whether the client's repositories begin with the registry's name."""
        return self in (NamedBy.PREFIX, NamedBy.NS_AND_PREFIX)

    @property
    def in_query(self) -> bool:
        """Whether the client's queries have `ns`."""
        return self in (NamedBy.NS, NamedBy.NS_AND_PREFIX)


@dataclass(frozen=True, slots=True)
class RegistryRequest:
    """What a request asks for, and of whom.

    `upstream` is a normalised name that is not yet checked against the allow-list. `query` is the client's own
    query without `ns`, byte for byte and without the question mark.
    """

    upstream: str
    route: Route
    named_by: NamedBy
    query: str

    @property
    def origin_target(self) -> str:
        """Path and query to ask the origin for."""
        return f"{self.route.path}?{self.query}" if self.query else self.route.path


def parse_request(
    raw_path: str, query: str, default_upstream: str, *, prefixes: bool = True, header: str | None = None
) -> RegistryRequest:
    """Read the path and query of a mirror request, both still percent-encoded.

    `ns` names the upstream if it is there, or else `header` (OCI-Namespace, as stargz and nydus ask); or else a first
    component that looks like a registry host does (the way podman and CRI-O ask), if `prefixes`; else it is
    `default_upstream`. A first component that says the same once more is not the repository's. `library/` is never
    added: clients do that. Raises NameInvalid or PathUnknown.
    """
    if len(query) > QUERY_LENGTH_MAX:
        raise NameInvalid(f"query of {len(query)} characters: at most {QUERY_LENGTH_MAX}")
    namespace, rest = _split_ns(query)
    decoded = _decode(raw_path)
    host, remainder = _split_host(decoded) if prefixes else (None, decoded)
    if namespace is not None or header:
        upstream = normalise_upstream(namespace if namespace is not None else header or "")
        by_path = host is not None and _means(host, upstream)
        named_by = NamedBy.HEADER if namespace is None else NamedBy.NS
        if by_path:
            named_by = NamedBy.PREFIX if namespace is None else NamedBy.NS_AND_PREFIX
        return RegistryRequest(upstream, _route(remainder if by_path else decoded), named_by, rest)
    if host is not None:
        return RegistryRequest(normalise_upstream(host), _route(remainder), NamedBy.PREFIX, rest)
    return RegistryRequest(normalise_upstream(default_upstream), _route(decoded), NamedBy.DEFAULT, rest)


def parse_named(raw_path: str, query: str, upstream: str) -> RegistryRequest:
    """The same of a request that was sent to the registry itself, through a proxy: nothing in it names another one.

    What is no part of the API is the registry's to answer. Raises NameInvalid for a target that cannot be sent on.
    """
    if len(query) > QUERY_LENGTH_MAX:
        raise NameInvalid(f"query of {len(query)} characters: at most {QUERY_LENGTH_MAX}")
    _, rest = _split_ns(query)
    try:
        route: Route = parse_path(raw_path)
    except (NameInvalid, PathUnknown):
        if len(raw_path) > PATH_LENGTH_MAX or not _PRINTABLE.fullmatch(raw_path):
            raise NameInvalid("path: printable ASCII expected, from its slash on") from None
        route, rest = ForeignRoute(raw_path), query
    return RegistryRequest(upstream, route, NamedBy.CONNECTION, rest)


def parse_path(raw_path: str) -> Route:
    """Read a percent-encoded `/v2/...` path that names no host. Raises NameInvalid and PathUnknown."""
    return _route(_decode(raw_path))


def check_repository(name: str) -> str:
    """Return the name, or raise NameInvalid where it is outside the specification's grammar."""
    if len(name) > REPOSITORY_LENGTH_MAX:
        raise NameInvalid(f"repository name of {len(name)} characters: at most {REPOSITORY_LENGTH_MAX}")
    if not _REPOSITORY.fullmatch(name):
        raise NameInvalid(f"repository {name[:80]!r}: lower-case path components expected")
    return name


def parse_reference(text: str) -> str | Digest:
    """A tag or a digest. Raises NameInvalid or DigestInvalid."""
    if ":" in text:
        return Digest.parse_any(text)
    if not _TAG.fullmatch(text):
        raise NameInvalid(f"tag {text[:80]!r}: letters, digits, '_', '.', '-', at most 128 expected")
    return text


def looks_like_host(component: str) -> bool:
    """Whether a first path component means a registry: it has a dot or a colon, or is `localhost`."""
    return "." in component or ":" in component or component == "localhost"


def rewrite_link(link: str, request: RegistryRequest) -> str | None:
    """Make an origin's `Link` header of a tag list point at the proxy that was asked.

    Host and scheme are dropped, and the registry's name is put back the way this request gave it. None means
    that the link leads out of the API, and must not be passed on.
    """
    match = re.fullmatch(r"\s*<([^<>]*)>(\s*;.*)?", link)
    if match is None:
        return None
    path, _, query = re.sub(r"^(?:https?:)?//[^/]*", "", match[1]).partition("?")
    if not path.startswith("/v2/") or not isinstance(request.route, TagsRoute | ReferrersRoute | CatalogRoute):
        return None
    if request.named_by.in_path:
        path = f"/v2/{request.upstream}/{path.removeprefix('/v2/')}"
    if request.named_by.in_query:
        query = f"{query}&ns={quote(request.upstream)}" if query else f"ns={quote(request.upstream)}"
    return f"<{path}?{query}>{match[2] or ''}" if query else f"<{path}>{match[2] or ''}"


def _decode(raw_path: str) -> str:
    if len(raw_path) > PATH_LENGTH_MAX:
        raise NameInvalid(f"path of {len(raw_path)} characters: at most {PATH_LENGTH_MAX}")
    try:
        return unquote(raw_path, errors="strict")
    except UnicodeDecodeError as error:
        raise NameInvalid(f"path {raw_path[:80]!r}: not UTF-8") from error


def _route(path: str) -> Route:
    if path in ("/v2", "/v2/"):
        return Ping()
    if path == "/v2/_catalog":
        return CatalogRoute()
    match = _MARKER.match(path)
    if not path.startswith("/v2/") or match is None:
        raise PathUnknown(f"path {path[:80]!r}: not of the pull side of the distribution API")
    repository = check_repository(path[len("/v2/") : match.start(1) - 1])
    rest = path[match.end() :]
    return _route_in(repository, match[1], rest)


def _route_in(repository: str, kind: str, rest: str) -> Route:
    """What follows a repository: `rest` is behind `/blobs/`, `/manifests/`, `/tags/` or `/referrers/`."""
    if kind == "blobs" and (rest == "uploads" or rest.startswith("uploads/")):
        return UploadRoute(repository, rest.removeprefix("uploads").removeprefix("/"))
    if kind != "tags" and (not rest or "/" in rest or rest in (".", "..")):
        raise PathUnknown(f"{rest[:80]!r}: one tag or digest expected at the path's end")
    try:
        if kind == "blobs":
            return BlobRoute(repository, Digest.parse_any(rest))
        if kind == "manifests":
            return ManifestRoute(repository, parse_reference(rest))
        if kind == "referrers":
            return ReferrersRoute(repository, Digest.parse_any(rest))
    except (DigestInvalid, NameInvalid):
        return OtherRoute(repository, kind, rest)
    if rest != "list":
        raise PathUnknown(f"{rest[:80]!r}: the API has tags/list alone")
    return TagsRoute(repository)


def _split_host(path: str) -> tuple[str | None, str]:
    """Take a registry's name off the front: `/v2/quay.io/org/name/...` is `quay.io` and `/v2/org/name/...`."""
    if not path.startswith("/v2/"):
        return None, path
    first, slash, rest = path.removeprefix("/v2/").partition("/")
    if not slash or not looks_like_host(first):
        return None, path
    if re.fullmatch(r"blobs/uploads/.*|(?:blobs|manifests|tags|referrers)/[^/]*", rest):
        return None, path  # the one component is the repository itself
    return first, f"/v2/{rest}"


def _means(host: str, upstream: str) -> bool:
    try:
        return normalise_upstream(host) == upstream
    except NameInvalid:
        return False


def _split_ns(query: str) -> tuple[str | None, str]:
    """Take `ns` out of a query; the other fields stay byte for byte."""
    namespaces: list[str] = []
    kept: list[str] = []
    for field in query.split("&") if query else []:
        if field.partition("=")[0] == "ns":
            namespaces += [value for _, value in parse_qsl(field, keep_blank_values=True)]
        else:
            kept.append(field)
    if len(namespaces) > 1:
        raise NameInvalid(f"query names {len(namespaces)} registries by ns: one expected")
    return (namespaces[0] if namespaces else None), "&".join(kept)
