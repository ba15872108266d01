"""What becomes of a request for another host than the mirror: who is asked, which hosts get a tunnel. Pure.

The target is a client's word: registries come from the allow-list, and everything else is reached as it is, unread, or
not at all. Addresses are checked where they are known, by peer.registry.tunnel_ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import NameInvalid, RemoteError, UpstreamNotAllowed
from proto.oci.upstreams import DOCKER_HUB, DOCKER_HUB_URL, normalise_authority, split_authority

if TYPE_CHECKING:
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable

HTTPS_PORT: Final = 443
_HUB_API_HOST: Final = DOCKER_HUB_URL.partition("://")[2]


class ForwardRefused(RemoteError):
    """A request to the forward proxy that is not followed; `status` is its answer's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Intercepted:
    """A tunnel that ends here: the mirror answers what is asked in it, for this upstream."""

    upstream: UpstreamConfig
    host: str
    port: int

    @property
    def authority(self) -> str:
        """HOST, and its port where that is not https's."""
        return _with_port(self.host, self.port).removesuffix(f":{HTTPS_PORT}")


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A tunnel to somebody else. `trusted`: the operator named the host, so its address may be a private one."""

    host: str
    port: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class ForwardPolicy:
    """`hosts` are HOST:PORT, normalised, that the operator named.

    Where not `local_only`, they alone get tunnels: whoever reaches the port could use it as a way out. Not so allowed
    registries, where this node cannot show certificates for them (`intercepts`): a pull must not fail for that.
    """

    enabled: bool = True
    intercepts: bool = True
    local_only: bool = True
    hosts: frozenset[str] = frozenset()

    def connect(self, target: str, table: UpstreamTable) -> Intercepted | Tunnelled:
        """What becomes of `CONNECT target`. Raises ForwardRefused."""
        self._check_enabled()
        try:
            authority = normalise_authority(target)
        except NameInvalid as error:
            raise ForwardRefused(f"CONNECT: {error}", 400) from None
        host, port = split_authority(authority, 0)
        if not port:
            raise ForwardRefused("CONNECT: HOST:PORT expected", 400)
        upstream = registry_of(authority, table)
        if upstream is not None and _is_plain(upstream):
            # Clients that know it as insecure then ask for it by plain http.
            raise ForwardRefused(f"registry {upstream.host} is asked by plain http: no TLS to it", 502)
        if upstream is not None and not self.intercepts:
            return Tunnelled(host, port, trusted=upstream.configured)
        if upstream is not None:
            return Intercepted(upstream, host, port)
        return self._tunnel(host, port)

    def absolute(self, authority: str, table: UpstreamTable) -> UpstreamConfig:
        """The upstream that a request with a whole URL is for. Raises ForwardRefused."""
        self._check_enabled()
        try:
            upstream = registry_of(normalise_authority(authority), table)
        except NameInvalid as error:
            raise ForwardRefused(f"proxied request: {error}", 400) from None
        if upstream is None:
            raise ForwardRefused("only allowed registries are asked by plain http through this proxy", 403)
        return upstream

    def _tunnel(self, host: str, port: int) -> Tunnelled:
        if _with_port(host, port) in self.hosts:
            return Tunnelled(host, port, trusted=True)
        if not self.local_only:
            raise ForwardRefused("this proxy is open to other machines, and tunnels to tunnel_hosts alone", 403)
        if port != HTTPS_PORT:
            raise ForwardRefused(f"port {port} is not https's: allow it with tunnel_hosts", 403)
        return Tunnelled(host, port, trusted=False)

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise ForwardRefused("the forward proxy is off (forward_proxy = false)", 403)


def registry_of(authority: str, table: UpstreamTable) -> UpstreamConfig | None:
    """The allowed upstream whose API is at this normalised HOST[:PORT], if there is one.

    Of Docker Hub's names only the API's host is a registry: the others serve its website and the search.
    """
    try:
        upstream = table.lookup(authority.removesuffix(f":{HTTPS_PORT}"))
    except (NameInvalid, UpstreamNotAllowed):
        return None
    if upstream.host == DOCKER_HUB and authority.removesuffix(f":{HTTPS_PORT}") != _HUB_API_HOST:
        return None
    return upstream


def intercepted_hosts(table: UpstreamTable) -> list[str]:
    """The host names and addresses, without ports, for which this node may show certificates; sorted."""
    hosts = {_HUB_API_HOST if each.host == DOCKER_HUB else each.host for each in table.all() if not _is_plain(each)}
    return sorted({split_authority(host, HTTPS_PORT)[0] for host in hosts})


def _is_plain(upstream: UpstreamConfig) -> bool:
    """Whether clients, too, know this registry as one over plain http: no other name of it is configured."""
    return upstream.insecure and upstream.authority == upstream.host


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
