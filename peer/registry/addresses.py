"""Which addresses an origin's redirects and token service may lead to. Pure but for the resolver that is passed in.

An upstream is the operator's choice and may be anywhere. What an upstream names is not: without this guard a
registry could make us ask the cloud's metadata service. The address that was checked is the one to connect to.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proto.errors import UpstreamError, UpstreamKind
from proto.oci.upstreams import UpstreamConfig, UpstreamTable, split_authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Resolver = Callable[[str, int], list[str]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Of the IANA's special-purpose addresses those that Python 3.11 takes for public ones.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to connect to, and how. `trusted`: the operator configured it, so its address may be a private one."""

    scheme: str
    host: str
    port: int
    trusted: bool
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    egress_proxy: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """The value of the Host header: without the port if it is the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default_port(self.scheme) else f"{host}:{self.port}"

    def same_server(self, other: Endpoint) -> bool:
        """Whether credentials for the other may be sent here."""
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)


def default_port(scheme: str) -> int:
    """443 for https, 80 for http."""
    return 443 if scheme == "https" else 80


def upstream_endpoint(upstream: UpstreamConfig, *, anonymous: bool) -> Endpoint:
    """Where an upstream is asked; `anonymous` leaves its client certificate out."""
    scheme = "http" if upstream.insecure else "https"
    host, port = split_authority(upstream.authority, default_port(scheme))
    return Endpoint(
        scheme,
        host,
        port,
        trusted=True,
        ca_file=upstream.ca_file,
        client_cert=None if anonymous else upstream.client_cert,
        client_key=None if anonymous else upstream.client_key,
        egress_proxy=upstream.egress_proxy,
    )


def named_endpoint(
    table: UpstreamTable, upstream: UpstreamConfig, scheme: str, authority: str, *, anonymous: bool
) -> Endpoint:
    """Where a redirect or realm of `upstream` leads: `authority` is normalised.

    Raises UpstreamError (denied) for what is neither https on 443 nor configured. Addresses are checked later,
    when they are known.
    """
    host, port = split_authority(authority, default_port(scheme))
    own = upstream_endpoint(upstream, anonymous=anonymous)
    if (scheme, host, port) == (own.scheme, own.host, own.port):
        return own
    trusted = _is_configured(table, upstream, scheme, host, port)
    if not trusted and (scheme, port) != ("https", 443):
        raise UpstreamError(
            f"origin {upstream.host} leads to {scheme}://{host}:{port}, which is not followed: allow it with "
            f'redirect_hosts = ["{host}:{port}"] in [upstream."{upstream.host}"]',
            UpstreamKind.DENIED,
        )
    return Endpoint(scheme, host, port, trusted, ca_file=upstream.ca_file, egress_proxy=upstream.egress_proxy)


def _is_configured(table: UpstreamTable, upstream: UpstreamConfig, scheme: str, host: str, port: int) -> bool:
    for name in upstream.redirect_hosts:
        if split_authority(name, port) == (host, port):
            return True
    # Over plain http anybody could be at another port.
    if upstream.configured and scheme == "https" and not upstream.insecure:
        own_host, _ = split_authority(upstream.authority, default_port(scheme))
        if own_host == host:
            return True
    for other in table.configured():
        endpoint = upstream_endpoint(other, anonymous=True)
        if (endpoint.scheme, endpoint.host, endpoint.port) == (scheme, host, port):
            return True
    return False


def is_public_address(text: str) -> bool:
    """Whether an address belongs to the public Internet. Sees through IPv6 forms of IPv4 addresses."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_private_literal(host: str) -> bool:
    """Whether a host is a literal address, in any form that inet_aton(3) knows, and not a public one; or localhost."""
    try:
        return not is_public_address(host)
    except ValueError:
        pass
    try:
        return not is_public_address(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return host == "localhost" or host.endswith(".localhost")


def checked_addresses(endpoint: Endpoint, resolver: Resolver) -> list[str]:
    """The addresses that may be connected to. Raises UpstreamError: unavailable (no address) or denied."""
    try:
        addresses = resolver(endpoint.host, endpoint.port)
    except OSError as error:
        raise UpstreamError(
            f"name of {endpoint.host} cannot be resolved: {error.strerror or error}", UpstreamKind.UNAVAILABLE
        ) from error
    if endpoint.trusted:
        return addresses
    allowed = [address for address in addresses if is_public_address(address)]
    if not allowed:
        raise UpstreamError(
            f"{endpoint.host} has no public address, and is not followed: name it in redirect_hosts of the upstream "
            "that leads there",
            UpstreamKind.DENIED,
        )
    return allowed
