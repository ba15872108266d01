"""The head of a blob's response: status, lengths and names for one client. No bytes of a body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from peer.proxy.headers import namespace_header
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.ranges import format_content_range
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal

if TYPE_CHECKING:
    from proto.oci.routes import RegistryRequest


@dataclass(frozen=True, slots=True)
class Part:
    """What of a blob a client gets: bytes [start, end) with status 200 or 206, or none with 416.

    `end` and `size_bytes` are None where the origin told no length.
    """

    status: int
    start: int
    end: int | None
    size_bytes: int | None

    @property
    def whole(self) -> bool:
        """Every byte of the blob is in it."""
        return self.status != 416 and self.start == 0 and self.end == self.size_bytes


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
        if part.status == 206:
            total = "*" if part.size_bytes is None else str(part.size_bytes)
            headers["Content-Range"] = format_content_range(part.start, part.end, 0).removesuffix("0") + total
    return web.StreamResponse(status=part.status, headers=headers)


def unsatisfiable(size_bytes: int | None) -> Refusal:
    """The 416 for a range of which the blob has no byte."""
    total = "*" if size_bytes is None else str(size_bytes)
    return Refusal(416, "RANGE_INVALID", f"no byte of that range in {total}", {"Content-Range": f"bytes */{total}"})


def refused(refusal: Refusal, asked: RegistryRequest | None = None) -> web.Response:
    """A registry error as a response."""
    headers = dict(refusal.headers)
    if asked is not None:
        headers.update(namespace_header(asked))
    return web.Response(status=refusal.status, body=refusal.body, headers=headers, content_type=BODY_CONTENT_TYPE)


def method_refused(method: str) -> Refusal:
    """The 405 for anything but reading."""
    return Refusal(405, "UNSUPPORTED", f"{method}: this mirror serves pulls alone", {"Allow": "GET, HEAD"})
