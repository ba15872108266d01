"""The origins of this process: finds the origin of an upstream by its name or its configuration.

All registries share connections and tokens, which live from the first request to close().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.registry.kinds import kind_of
from peer.registry.registry_origin import RegistryClients, RegistryOrigin
from proto.errors import RemoteError, UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Origin
    from peer.registry.client import OriginHttp
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable


class Origins:
    """Safe to use from many threads. aclose() on the loop where manifests were asked for, then close()."""

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        *,
        on_request: Callable[[str], None] = lambda method: None,
        user_agent: str = "layercast",
        http: OriginHttp | None = None,
    ) -> None:
        """`upstreams` returns the table in force, which may change. `on_request` is called from any thread with GET,
        HEAD or TOKEN for each request that is made.
        """
        self.upstreams = upstreams
        self._on_request = on_request
        self._registries = RegistryClients(upstreams, on_request, user_agent, http)

    def of(self, upstream: UpstreamConfig) -> Origin:
        """The origin of a configured upstream."""
        if upstream.kind:
            return kind_of(upstream.kind).open_origin(upstream, self._on_request)
        return RegistryOrigin(upstream, self._registries)

    def at(self, host: str) -> Origin:
        """The origin of that name. Raises UpstreamError (denied) where it is not on the allow-list."""
        try:
            return self.of(self.upstreams().lookup(host))
        except RemoteError as error:
            raise UpstreamError(str(error), UpstreamKind.DENIED) from error

    async def aclose(self) -> None:
        """Close what `manifest` keeps open."""
        await self._registries.aclose()

    def close(self) -> None:
        """Close idle connections; those in use are closed when their bodies end."""
        self._registries.close()
