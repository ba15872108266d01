"""The head of a blob's response: status, lengths and names for one client. No bytes of a body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.headers import namespace_header
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal

if TYPE_CHECKING:
    from proto.oci.ranges import Part
    from proto.oci.routes import RegistryRequest


def check_empty(digest: Digest, size_bytes: int | None) -> None:
    """An empty body has no last byte to withhold: refuse it before the headers if it is wrong.

    Raises UpstreamError (content).
    """
    if size_bytes == 0 and digest != Digest.of(b"", digest.algorithm):
        raise UpstreamError(f"origin says that blob {digest.short} is empty, which it is not", UpstreamKind.CONTENT)


def blob_response(asked: RegistryRequest, digest: Digest, part: Part) -> web.StreamResponse:
    """The head of a 200 or 206; without a length the body will be chunked."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": str(digest),
        "Docker-Distribution-Api-Version": "registry/2.0",
        "Accept-Ranges": "bytes",
        **namespace_header(asked),
    }
    if part.end is not None:
        headers["Content-Length"] = str(part.end - part.start)
    if part.content_range is not None:
        headers["Content-Range"] = part.content_range
    return web.StreamResponse(status=part.status, headers=headers)


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
    """The 405 for anything but reading."""
    return Refusal(405, "UNSUPPORTED", f"{method}: this mirror serves pulls alone", {"Allow": "GET, HEAD"})
