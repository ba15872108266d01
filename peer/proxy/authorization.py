"""Which upstream a request means, and whether this node may ask it. No sockets, no bytes.

What may be *given* to a client is the origin's to say, each time; this is only about whom we ask at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.errors import RemoteError
from proto.oci.routes import HOP_HEADER, BlobRoute, RegistryRequest, parse_request
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Container

    from proto.oci.upstreams import UpstreamConfig, UpstreamTable


class ProxyLoop(RemoteError):
    """The request has already been through a proxy of ours: following it would never end."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request that was understood, and the upstream that it may go to."""

    request: RegistryRequest
    upstream: UpstreamConfig

    def source(self, route: BlobRoute) -> Source:
        """From where the blob of this request may be asked."""
        return Source(self.upstream.host, route.repository)


def authorize(target: str, headers: Container[str], upstreams: UpstreamTable) -> UpstreamRequest:
    """Read a request target (path and query as sent) and find its upstream in the allow-list.

    Raises NameInvalid, DigestInvalid, PathUnknown, UpstreamNotAllowed or ProxyLoop.
    """
    if HOP_HEADER in headers:
        raise ProxyLoop("this request came through Layercast already: an upstream leads back to a mirror of ours")
    path, _, query = target.partition("?")
    request = parse_request(path, query, upstreams.default.host)
    return UpstreamRequest(request, upstreams.lookup(request.upstream))
