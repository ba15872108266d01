"""The origins of this process: finds the origin of an upstream by its name or its configuration.

An origin that is no registry is of a kind, which has a key in the `[upstream."HOST"]` sections and a module here. The
module has `check(place)`, which raises ValueError if the value of that key cannot be used, and
`open_origin(upstream, on_request)`. It is imported only where an upstream of its kind is configured.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from peer.registry.limits import OriginLimits
from peer.registry.queues import UpstreamQueues, ignore
from proto.errors import RemoteError, UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Login, Origin
    from peer.registry.client import OriginHttp
    from peer.registry.queues import OnQueue
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig, UpstreamTable
    from proto.wire.messages import Source

_KINDS: Final = {
    "directory": "peer.registry.directory",
}


class _Kind(Protocol):
    """The module of a kind."""

    def check(self, place: str) -> None: ...

    def open_origin(self, upstream: UpstreamConfig, on_request: Callable[[str], None]) -> Origin: ...


def _kind(key: str) -> _Kind:
    return cast("_Kind", importlib.import_module(_KINDS[key]))


def _check(key: str, place: str) -> None:
    _kind(key).check(place)


# For proto.config.upstream_sections: the keys, and the check of each value.
PLACES: Final[dict[str, Callable[[str], None]]] = {key: functools.partial(_check, key) for key in _KINDS}


class Origins:
    """Safe to use from many threads. close() it in the end.

    `queues` is where work at an upstream waits for its turn, `limits` how fast the bytes of blobs may come.
    """

    def __init__(
        self,
        upstreams: Callable[[], UpstreamTable],
        *,
        on_request: Callable[[str], None] = lambda method: None,
        on_queue: OnQueue = ignore,
        user_agent: str = "layercast",
        first_byte_s: float = 120.0,
        rate_min_bytes_s: int = 1024,
        http: OriginHttp | None = None,
        logins: Callable[[UpstreamConfig, Login | None], Login | None] = lambda upstream, refused: None,
    ) -> None:
        """`upstreams` returns the table in force, which may change. `on_request` is called from any thread with GET,
        HEAD or TOKEN for each request that is made. `first_byte_s` and `rate_min_bytes_s` are OriginTimeouts'. `logins`
        gives the operator's for an upstream, another one where that is given which was just refused.
        """
        from peer.registry.client import OriginHttp
        from peer.registry.registry_clients import RegistryClients
        from peer.registry.registry_origin import RegistryOrigin
        from peer.registry.sockets import OriginTimeouts

        self.upstreams = upstreams
        self.queues = UpstreamQueues(on_queue)
        self.limits = OriginLimits()
        self._on_request = on_request
        # All registries share connections and tokens.
        timeouts = OriginTimeouts(first_byte_s=first_byte_s, rate_min_bytes_s=rate_min_bytes_s)
        http = http or OriginHttp(timeouts)
        self._registries = RegistryClients(upstreams, on_request, user_agent, self.queues, http, logins)
        self._registry = functools.partial(RegistryOrigin, clients=self._registries)

    def of(self, upstream: UpstreamConfig) -> Origin:
        """The origin of a configured upstream."""
        if upstream.kind:
            return _kind(upstream.kind).open_origin(upstream, self._on_request)
        return self._registry(upstream)

    def at(self, host: str) -> Origin:
        """The origin of that name. Raises UpstreamError (denied) where it is not on the allow-list."""
        try:
            return self.of(self.upstreams().lookup(host))
        except RemoteError as error:
            raise UpstreamError(str(error), UpstreamKind.DENIED) from error

    def leave_alone(self, source: Source, digest: Digest, seconds: float) -> None:
        """The origin told another node that it wants no questions about this blob for so long: ask none here either."""
        self._registries.leave_alone(source, digest, seconds)

    def limited(self) -> dict[str, float]:
        """Upstreams that answered 429, and for how many seconds they want no questions."""
        return self._registries.pauses.limited()

    def rows(self) -> dict[str, dict[str, Any]]:
        """How each upstream does that was asked since the start, for operators: by host.

        `waiting` by the kind of work, `failures` by UpstreamKind, `retry_after_s`: it wants no questions for so long.
        """
        waiting, failures, limited = self.queues.all_waiting(), self._registries.failures.rows(), self.limited()
        return {
            host: {
                "waiting": waiting.get(host, {}),
                "failures": {},
                "last_failure": "",
                "last_failure_ago_s": None,
                **failures.get(host, {}),
                "retry_after_s": round(limited[host], 1) if host in limited else None,
            }
            for host in {*waiting, *failures, *limited}
        }

    def close(self) -> None:
        """Join the threads, whose work was cancelled, and close idle connections."""
        self.limits.set_rate(0)
        self.queues.close()
        self._registries.close()
