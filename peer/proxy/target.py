"""Which registry a request to the mirror means, and whether that may be asked. What may be given is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.proxy.heads import OCI_NAMESPACE
from peer.proxy.named_upstream import split_absolute
from proto.errors import NameInvalid, UpstreamNotAllowed
from proto.oci.routes import NamedBy, parse_request

if TYPE_CHECKING:
    from multidict import MultiMapping

    from proto.oci.routes import RegistryRequest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable


def understand(
    target: str, headers: MultiMapping[str], upstreams: UpstreamTable
) -> tuple[RegistryRequest, UpstreamConfig]:
    """A request's target (path and query, as sent), and its upstream in the allow-list.

    Raises NameInvalid, PathUnknown and UpstreamNotAllowed.
    """
    path, _, query = (split_absolute(target) or ("", target))[1].partition("?")
    default, header = upstreams.default, _named_in(headers)
    request = parse_request(path, query, default.host, header=header)
    try:
        return request, upstreams.lookup(request.upstream)
    except UpstreamNotAllowed:
        # A registry of the operator's own may have repositories whose first part looks like a host.
        if header or request.named_by is not NamedBy.PREFIX or not default.configured or ":" in request.upstream:
            raise
        return parse_request(path, query, default.host, prefixes=False), default


def _named_in(headers: MultiMapping[str]) -> str | None:
    names = {name.strip() for name in headers.getall(OCI_NAMESPACE, [])}
    if len(names) > 1:
        raise NameInvalid(f"{OCI_NAMESPACE} names {len(names)} registries: one expected")
    return names.pop() if names else None
