"""Heads: which header lines cross the proxy, each way, and what our own responses begin with. No bytes of a body.

Lines keep their number and order: docker sends its Accept as six lines, and falls to an old schema when they are
collapsed or lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import CIMultiDict

from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal
from proto.oci.routes import HOP_HEADER, CatalogRoute, ForeignRoute, NamedBy, Ping, RegistryRequest, rewrite_link
from proto.oci.www_authenticate import bearer_challenge, insufficient_scope

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy, MultiMapping

    from proto.oci.multipart import Multipart
    from proto.oci.ranges import Part

# By which some clients name their registry, and we tell which one we understood.
OCI_NAMESPACE: Final = "OCI-Namespace"
# RFC 9110 section 7.6.1, with the older names that are still met.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The request's own framing and address, and what a browser would add for the proxy's address.
_NOT_FOR_ORIGINS = _HOP_BY_HOP | {
    "content-length",
    "cookie",
    "expect",
    "host",
    HOP_HEADER.lower(),
    OCI_NAMESPACE.lower(),
}
_NOT_FOR_BLOBS = frozenset(
    {"accept-encoding", "authorization", "if-match", "if-modified-since", "if-none-match", "if-range", "range"}
)
# RFC 7234 section 5.5.
_STALE_WARNING: Final = '110 layercast "Response is Stale", 111 layercast "Revalidation Failed"'
# Set of a request whose answer does not come from its origin, because that is down.
STALE: Final = web.RequestKey("stale", bool)
# Alt-Svc and HSTS speak of the origin's address, which is not ours.
_NOT_FOR_CLIENTS = _HOP_BY_HOP | {"alt-svc", "strict-transport-security"}


def for_origin(received: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """A client's header lines as they go on to the origin, with the mark by which we know our own requests.

    Of several credentials the first goes alone, as registries read them: what it is answered is remembered for it.
    """
    named = _named_by_connection(received)
    kept = CIMultiDict((n, v) for n, v in received.items() if n.lower() not in _NOT_FOR_ORIGINS | named)
    if len(credentials := kept.getall("Authorization", [])) > 1:
        kept["Authorization"] = credentials[0]
    kept.add(HOP_HEADER, "1")
    return kept


def for_blobs(lines: CIMultiDict[str]) -> tuple[tuple[str, str], ...]:
    """Those of them for a blob's bytes, without what is said otherwise there: credential, range, coding."""
    kept = [(name, value) for name, value in lines.items() if name.lower() not in _NOT_FOR_BLOBS]
    return *kept, ("Accept-Encoding", "identity")


def for_client(
    asked: RegistryRequest, status: int, received: MultiMapping[str], *, actions: str = "pull"
) -> CIMultiDict[str]:
    """An origin's header lines as they go on to the client: `Link` stays on this host, the challenge fits the path.

    `actions` are what the client wants to do there.
    """
    named = _named_by_connection(received)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in received.items():
        lowered = name.lower()
        if lowered in _NOT_FOR_CLIENTS | named or (lowered == "www-authenticate" and status == 401):
            continue
        # Which web pages may read at the registry's name is its to say. At the mirror's name none may.
        if lowered.startswith("access-control-") and asked.named_by is not NamedBy.CONNECTION:
            continue
        rewritten = rewrite_link(value, asked) if lowered == "link" else value
        if rewritten is not None:
            kept.add(name, rewritten)
    if status == 401:
        for challenge in challenges_for(asked, received.getall("WWW-Authenticate", []), actions):
            kept.add("WWW-Authenticate", challenge)
    kept.extend(namespace_header(asked))
    return kept


def mark_stale(headers: CIMultiDict[str]) -> None:
    """Tell the client that its answer is not its origin's of this moment."""
    headers.add("Warning", _STALE_WARNING)


def challenges_for(asked: RegistryRequest, challenges: list[str], actions: str = "pull") -> list[str]:
    """The origin's challenges, reworded so that a client that named the registry in the path can follow.

    podman asks its first token for the path with the prefix in it, and asks again with the right scope only when
    it is told `insufficient_scope` and the scope that would do.
    """
    if not asked.named_by.in_path or isinstance(asked.route, Ping | CatalogRoute | ForeignRoute):
        return challenges
    bearer = bearer_challenge(challenges)
    if bearer is None or (bearer.get("error") == "insufficient_scope" and bearer.get("scope")):
        return challenges
    return [str(insufficient_scope(bearer, asked.route.repository, actions))]


def namespace_header(asked: RegistryRequest) -> dict[str, str]:
    """`OCI-Namespace`, for whoever named the registry by `ns` or by that header."""
    told = asked.named_by.in_query or asked.named_by is NamedBy.HEADER
    return {OCI_NAMESPACE: asked.upstream} if told else {}


def _named_by_connection(headers: MultiMapping[str]) -> frozenset[str]:
    """Header names that the sender declared to be for the next hop only."""
    return frozenset(
        token.strip().lower() for line in headers.getall("Connection", []) for token in line.split(",") if token.strip()
    )


def check_empty(digest: Digest, size_bytes: int | None) -> None:
    """An empty body has no last byte to withhold: refuse it before the headers if it is wrong.

    Raises UpstreamError (content).
    """
    if size_bytes == 0 and digest.checked and digest != Digest.of(b"", digest.algorithm):
        raise UpstreamError(f"origin says that blob {digest.short} is empty, which it is not", UpstreamKind.CONTENT)


def blob_response(asked: RegistryRequest, digest: Digest, part: Part) -> web.StreamResponse:
    """The head of a 200 or 206; without a length the body will be chunked."""
    headers = _blob_headers(asked, digest, "application/octet-stream")
    if part.end is not None:
        headers["Content-Length"] = str(part.end - part.start)
    if part.content_range is not None:
        headers["Content-Range"] = part.content_range
    return web.StreamResponse(status=part.status, headers=headers)


def multipart_response(asked: RegistryRequest, digest: Digest, multipart: Multipart) -> web.StreamResponse:
    """The head of a 206 with several ranges."""
    headers = _blob_headers(asked, digest, multipart.content_type)
    headers["Content-Length"] = str(multipart.length_bytes)
    return web.StreamResponse(status=206, headers=headers)


def _blob_headers(asked: RegistryRequest, digest: Digest, content_type: str) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Docker-Content-Digest": str(digest),
        "Docker-Distribution-Api-Version": "registry/2.0",
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
        **namespace_header(asked),
    }


def asked_range(http: web.Request, digest: Digest) -> str | None:
    """The Range header, unless it was meant for other content (If-Range)."""
    return http.headers.get("Range") if http.headers.get("If-Range") in (None, f'"{digest}"') else None


def not_modified(asked: RegistryRequest, http: web.Request, digest: Digest) -> web.Response | None:
    """The 304 for a client that has the blob already and says so (If-None-Match), or None."""
    named = {
        tag.strip().removeprefix("W/") for line in http.headers.getall("If-None-Match", []) for tag in line.split(",")
    }
    if named.isdisjoint({"*", f'"{digest}"'}):
        return None
    headers = {"ETag": f'"{digest}"', "Docker-Content-Digest": str(digest), **namespace_header(asked)}
    return web.Response(status=304, headers=headers)


def unsatisfiable(part: Part) -> Refusal:
    """The 416 for a range of which the blob has no byte."""
    assert part.content_range is not None
    message = f"no byte of that range in {part.size_bytes}"
    return Refusal(416, "RANGE_INVALID", message, {"Content-Range": part.content_range})


def refused(refusal: Refusal, asked: RegistryRequest | None = None) -> web.Response:
    """A registry error as a response."""
    headers = dict(refusal.headers)
    if asked is not None:
        headers.update(namespace_header(asked))
    return web.Response(status=refusal.status, body=refusal.body, headers=headers, content_type=BODY_CONTENT_TYPE)


def method_refused(method: str) -> Refusal:
    """The 405 for what the distribution API does not have."""
    allowed = {"Allow": "GET, HEAD, POST, PATCH, PUT, DELETE"}
    return Refusal(405, "UNSUPPORTED", f"{method}: not of the distribution API there", allowed)
